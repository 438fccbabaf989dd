"""What a model describes and how: biological complexity against computational design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LAYERS = (
    "multi_population", "car_phenotypes", "receptor_or_antigen_density", "clonotypes",
    "target_maturation", "antigen_driven_expansion", "t_cell_competition",
    "habitats_or_topology", "organ_distribution", "cytokines", "comedication_or_preconditioning",
    "other_molecular", "organism_covariates")
ALLOWED: dict[str, tuple[str, ...]] = {
    "layers": LAYERS,
    "kinetics": ("classic_pk", "pk", "pkpd", "qsp", "pbpk", "pbpk_pd"),
    "depth": ("empirical", "semi_mechanistic", "mechanistic"),
    "populations": ("car_t", "normal_t", "tumour", "healthy_target", "normal_b_maturation",
                    "other"),
    "phenotypes": ("undivided", "naive", "central_memory", "effector_memory", "memory",
                   "effector", "activated", "non_activated", "exhausted", "distributed", "cd4",
                   "cd8"),
    "habitats": ("generic", "blood", "bone_marrow", "lymph_node", "tumour_site", "brain", "dish",
                 "tissue"),
    "distribution": ("none", "compartments", "pbpk"),
    "use": ("qualitative", "quantitative"),
    "parameters_from": ("literature", "fitted", "sampled", "mixed", "none"),
    "fit_level": ("none", "population_mean", "individual", "nlme"),
    "setting": ("in_vitro", "mouse", "clinical"),
    "measured": ("blood_qpcr", "blood_flow", "serum_marker", "marrow", "imaging_volume",
                 "cell_index", "microscopy", "none"),
}
_LAWS = ("growth", "killing", "expansion", "competition", "memory", "exhaustion", "bystander",
         "antigen_loss")


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """Where a model stands between empirical and mechanistic, and what it was made for.

    layers : the biological layers it captures, of LAYERS; their number is its complexity index
    laws : the building blocks by what they are for ({"growth": "logistic"}); names as in
        `carpk.laws` where it has them
    parameters_from, fit_level : where its values come from, and fitted to whom
    in_review : whether the table of the review of CAR T-cell models that gave the schema has it

    >>> Taxonomy("pk", "empirical", layers=("comedication_or_preconditioning",)).index
    1
    """

    kinetics: str
    depth: str
    populations: tuple[str, ...] = ("car_t",)
    phenotypes: tuple[str, ...] = ("undivided",)
    layers: tuple[str, ...] = ()
    habitats: tuple[str, ...] = ("generic",)
    distribution: str = "none"
    laws: Mapping[str, str] = field(default_factory=dict)
    use: str = "quantitative"
    parameters_from: str = "none"
    fit_level: str = "none"
    setting: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    product: str = ""
    antigen: str = ""
    disease: str = ""
    in_review: bool = False

    @property
    def index(self) -> int:
        """The biological complexity index, 0 to 13: counted, never typed in."""
        return len(set(self.layers))

    def problems(self) -> list[str]:
        """What is not of the schema, in words."""
        found = []
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            for word in (value,) if isinstance(value, str) else value:
                if word not in allowed:
                    found.append(f"taxonomy {name}: {word!r} is none of {', '.join(allowed)}")
        found += [f"taxonomy laws: {what!r} is none of {', '.join(_LAWS)}" for what in self.laws
                  if what not in _LAWS]
        several = {p for p in self.populations if p != "car_t"}
        if bool(several) != ("multi_population" in self.layers):
            found.append("taxonomy: the layer multi_population and more than CAR T cells among "
                         "the populations go together")
        if (set(self.phenotypes) != {"undivided"}) != ("car_phenotypes" in self.layers):
            found.append("taxonomy: the layer car_phenotypes and phenotypes other than "
                         "undivided go together")
        return found

