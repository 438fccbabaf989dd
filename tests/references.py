"""Published fits as carpk states them: name -> (population model, cohort, theta)."""

import numpy as np
import pandas as pd
import reference_models as models
from models_for_tests import cohort

from carpk.nonmem import read_csv
from carpk.population_model import population


def spreads(**variances):
    return {f"omega_{n}": v**0.5 for n, v in variances.items()}


def block(names, *lower):
    """SDs and correlations of a covariance given row by row of its lower triangle."""
    size = len(names)
    matrix = np.zeros((size, size))
    matrix[np.tril_indices(size)] = lower
    sds = np.sqrt(np.diag(matrix))
    return {f"omega_{n}": sd for n, sd in zip(names, sds, strict=True)} | {
        f"corr_{names[j]}_{names[i]}": matrix[i, j] / sds[i] / sds[j]
        for i in range(size) for j in range(i)}


def typical(**logs):
    return {f"{n}_pop": float(np.exp(v)) for n, v in logs.items()}


def theophylline(data):
    return models.single_dose(data / "theophylline" / "theopp_nonmem.csv", WT="WT")


def theophylline_fo(data):
    return (population(models.THEO_FO, correlated="full",
                       covariates={"CL ~ WT": "exponential(70)"}), theophylline(data), {
        "KA_pop": 2.77387, "K_pop": 0.0781286, "CL_pop": 70 * 0.0363073,
        "beta_CL_WT": 0.0363073, "sigma_C_add": 0.387501**0.5,
        **block(("KA", "K", "CL"), 5.54976, 0.00523932, 0.000239848, -0.127668, 0.00910643,
                0.515206)})


def _nlme(data, ke, ka, cl, omega_ka, omega_cl, sigma):
    return population(models.THEO_NLME, spread=["Ka", "Cl"]), theophylline(data), {
        **typical(Ke=ke, Ka=ka, Cl=cl), "omega_Ka": omega_ka, "omega_Cl": omega_cl,
        "sigma_C_add": sigma}


def theophylline_nlmer(data):
    return _nlme(data, -2.4656044, 0.48285105, -3.2302175, 0.65584124, 0.16753825, 0.70782555)


def theophylline_nlme(data):
    return _nlme(data, -2.4547044, 0.46573638, -3.2272229, 0.64357459, 0.16692820, 0.70925446)


def theophylline_saemix(data):
    return (population(models.ORAL, errors={"C": "additive"}),
            models.single_dose(data / "theophylline" / "theo_saemix.csv"), {
                "ka_pop": 1.5824, "V_pop": 31.661, "CL_pop": 2.7463, "sigma_C_add": 0.74126,
                **spreads(ka=0.38822, V=0.016788, CL=0.072565)})


_WARFARIN = {**typical(ka=-0.569395, CL=-2.00723, V=2.05853), "sigma_C_prop": 0.117047,
             "sigma_C_add": 0.722484, **spreads(ka=0.474983, CL=0.0790298, V=0.0482784)}


def warfarin(data):
    return (population(models.ORAL),
            models.single_dose(data / "warfarin" / "warfarin_pks.csv"), _WARFARIN)


def warfarin_ode(data):
    return (population(models.ORAL_ODE, steps=120),
            read_csv(data / "warfarin" / "warfarin_pks.csv"), _WARFARIN)


def warfarin_lag(data):
    return (population(models.LAGGED), warfarin(data)[1], {
        **typical(ka=0.229059, CL=-2.02255, V=2.0759, lag=-0.230712),
        "sigma_C_prop": 0.0842935, "sigma_C_add": 0.281372,
        **spreads(ka=0.643555, CL=0.0838693, V=0.0484973, lag=0.388885)})


def phenobarbital(data):
    return (population(models.BOLUS, steps=120),
            models.phenobarbital(data / "phenobarbital" / "pheno.csv"),
            {"CL_pop": 0.00581756, "V_pop": 1.44555, "sigma_C_prop": 0.0164177**0.5,
             **spreads(CL=0.111053, V=0.201526)})


def phenobarbital_real(data):
    return (population(models.BOLUS, steps=120, covariates={
        "CL ~ WGT": "power(1)", "V ~ WGT": "power(1)", "V ~ LOW": "linear(0)"},
        fixed={"beta_CL_WGT": 1.0, "beta_V_WGT": 1.0}), phenobarbital(data)[1],
        {"CL_pop": 0.00469555, "V_pop": 0.984258, "beta_V_LOW": 0.15892,
         "sigma_C_prop": 0.013241**0.5, **spreads(CL=0.0293508, V=0.027906)})


def _bauer(data, logs, sigma2, *omega):
    names = ("CL_WT", "V_WT", "CL_AGE", "V_AGE", "CL_SEX", "V_SEX")
    forms = {"WT": "power(70)", "AGE": "power(50)", "SEX": "exponential(0)"}
    return (population(models.INFUSED, correlated="full", covariates={
        n.replace("_", " ~ "): forms[n.partition("_")[2]] for n in names}),
        models.single_dose(data / "bauer501_covariates" / "bauer501.csv", WT="WT", AGE="AGE",
                           SEX="SEX"),
        {**typical(CL=logs[0], V=logs[1]), "sigma_C_prop": sigma2**0.5,
         **{f"beta_{n}": b for n, b in zip(names, logs[2:], strict=True)},
         **block(("CL", "V"), *omega)})


def bauer501(data):
    return _bauer(data, (1.10899, 3.4777, 0.659764, 1.32154, -0.534045, 0.0522912, -0.101058,
                         -0.0547756), 0.0502578, 0.0307235, 0.00147874, 0.0466096)


def bauer501_saem(data):
    return _bauer(data, (1.07133, 3.46712, 0.644318, 1.31126, -0.5438, 0.0601303, -0.100781,
                         -0.0566908), 0.049857, 0.0295528, 0.000298618, 0.049861)


def schoemaker(data):
    return (population(models.TWO),
            models.single_dose(data / "schoemaker2019_sim" / "bolus_2cpt_sd.csv"),
            {**typical(CL=1.37034, V1=4.19815, Q=1.38003, V2=3.87657), "sigma_C_prop": 0.196446,
             **spreads(CL=0.101251, V1=0.0993872, Q=0.101303, V2=0.0730498)})


def schoemaker_set(data, name, structure):
    """One of the four simulated sets, and the true values of its individuals."""
    folder = data / "schoemaker2019_sim"
    truth = pd.read_csv(folder / f"{name}_true_individual.csv").rename(columns=str.upper)
    return (population(getattr(models, structure), errors={"C": "proportional"}),
            models.single_dose(folder / f"{name}_sd.csv"), truth)


def _ad3tr4(data, logs, sigma, *omega):
    return (population(models.TWO_LOG, correlated="full"),
            models.single_dose(data / "ad3tr4_blq" / "ad3tr4_blq.csv"),
            {**typical(**dict(zip(("CL", "V1", "Q", "V2"), logs, strict=True))),
             "sigma_C_add": sigma, **block(("CL", "V1", "Q", "V2"), *omega)})


def ad3tr4(data):
    return _ad3tr4(data, (1.69938, 1.65161, 0.809101, 2.45301), 0.291704, 0.170227, -0.00446472,
                   0.0976946, -0.0197379, -0.0251672, 0.0645438, -0.00723288, 0.0119151,
                   0.0373195, 0.177864)


def ad3tr4_sampled(data):
    return _ad3tr4(data, (1.67521, 1.60802, 0.737699, 2.37246), 0.274265, 0.166658, -0.000898634,
                   0.138145, -0.00263869, -0.0133853, 0.11239, -0.0331252, 0.00964809, 0.0401963,
                   0.147802)


def orthodont(data):
    table = pd.read_csv(data / "lme_orthodont" / "orthodont.csv")
    sex = table.groupby("ID", sort=False)["SEX"].first().to_numpy(object)
    rows = [(str(r.ID), r.AGE, r.DV) for r in table.itertuples()]
    return (population(models.LINE, correlated="full", covariates={
        "a ~ SEX": "category(Male)", "b ~ SEX": "category(Male)"}), cohort(rows, SEX=sex),
        {"a_pop": 16.340625, "b_pop": 0.784375, "beta_a_SEX_Female": 1.0321022727,
         "beta_b_SEX_Female": -0.3048295455, "omega_a": 4.5568940632**0.5,
         "omega_b": 0.0237588214**0.5, "corr_a_b": -0.603, "sigma_C_add": 1.7162038582**0.5})


def wbc(data):
    return (population(models.MARROW, steps=480),
            read_csv(data / "wbc_myelosuppression" / "wbc.csv"),
            {**typical(CIRC0=1.8317, MTT=8.3733, SLOPU=6.3774, GAMMA=-11.558),
             "sigma_C_prop": 0.46465, **spreads(CIRC0=0.097905, MTT=3e-6, SLOPU=2e-5)})


def mixed(data):
    table = pd.read_csv(data / "wexample10_mixed" / "wexample10.csv")
    rows = [(str(r.ID), r.TIME, r.DV, r.DV, r.DV, r.DVID)
            for r in table[table["EVID"] == 0].itertuples()]
    dose = table.groupby("ID", sort=False)["AMT"].max().to_numpy(float)
    return (population(models.MIXED, correlated="full"), cohort(rows, DOSE=dose),
            {**typical(KA=1.12165, V=3.38897, CL=2.43588), "base_pop": -0.648135,
             "slope_pop": 0.0807656, "sigma_C_prop": 0.0228012**0.5,
             **block(("KA", "V", "CL"), 0.0869673, 0.00390315, 0.0744346, 0.0379237, 0.0294554,
                     0.0852318)})


def stein90(data):
    import stein_sim
    return *stein_sim.both(data), {
        "Cmax_pop": 24000, "Tmax_pop": 9, "foldx_pop": 4000, "alpha_pop": 0.16,
        "beta_pop": 0.0032, "FB_pop": 0.006, "omega_Cmax": 1.0, "omega_Tmax": 0.3,
        "omega_foldx": 1.2, "omega_alpha": 0.5, "omega_beta": 0.7, "omega_FB": 1.0,
        "sigma_C_log": 0.7}


def pkpd40(data):
    import predator_prey
    model = population(predator_prey.MODEL, fixed=[])
    return model, read_csv(data / "sim_pkpd40" / "pkpd40.csv"), {}
