"""The dependency direction: who may import whom, read from every import with `ast`.

A file imports only from a lower layer, or from further left in its own. Leaves of one folder
never import each other, but may import their folder's `__init__`.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (  # lowest first; within a layer, left to right
    "problems registry program_cache many_fits digits taxonomy laws integrators "
    "diffrax_steps small_matrices devices round_sizes",
    "words declarations structure units cohort censoring csvfile records dose_rows nonmem "
    "examples noncompartmental models/*",
    "priors tails error_models/* covariate_models/* effects earlier horseshoe correlated epochs "
    "classes levels missing separate_errors paired_errors stated_values population_model occasions "
    "changes",
    "coordinates thresholds dosing solve padding accuracy likelihood preparation sensitivities "
    "climbing conditional empirical_bayes mixture_start geometry "
    "approximations importance uninformed integrated asymptotics information_criteria "
    "expected_information simulation virtual_cohort trajectories prior_cohorts",
    "checkpoints model_record posterior marginal stochastic_em starting_values chains multistart "
    "refused_priors maximum_likelihood estimators/* fitting",
    "persistence exposure_summary prediction conditional_residuals "
    "regression_quantiles predictive_check refitting resampling profiling numerical_check "
    "fit_exposure normalised_errors "
    "endpoint_check covariate_effects individual_information outcome_regression "
    "outcome_data exposure_outcomes outcome_curves class_rows level_rows occasion_rows "
    "missing_rows tables comparison model_choice cross_validation plots/* drawings "
    "outcome_drawings uncertainty_drawings zoo word paper_tables reporting",
    "requests progress outfiles comparison_drawing simulation_request screening cli_options "
    "cli_request cli_fit cli_objective cli*",
)
PLACES = [(layer, place, name) for layer, names in enumerate(LAYERS)
          for place, name in enumerate(names.split())]
EXCEPTIONS: set[tuple[str, str]] = set()  # this list may only shrink
OUTSIDE = ("carpk", "carpk.__main__")  # the package itself and the door: they may import anything
WALLS = {  # third parties that only these may import
    "numpyro": ("carpk.estimators.nuts", "carpk.estimators.gibbs", "carpk.estimators.svi"),
    "arviz": ("carpk.posterior",), "arviz_base": ("carpk.posterior",),
    "arviz_stats": ("carpk.posterior",), "arviz_plots": ("carpk.posterior",),
    "matplotlib": ("carpk.plots",), "typer": ("carpk.cli",), "click": ("carpk.cli",),
    "rich": ("carpk.cli", "carpk.progress"),
    "diffrax": ("carpk.diffrax_steps",),
    "joblib": ("carpk.many_fits",), "distributed": ("carpk.many_fits",),
}
A_MODEL_MAY_IMPORT = ("carpk.structure", "carpk.taxonomy", "carpk.laws", "jax", "jax.numpy")
EMPTY_WORDS = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "handler"}


def module_name(path):
    """carpk/plots/traces.py -> carpk.plots.traces; models/x.py -> carpk.models.x."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "carpk" else ("carpk", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(f): f for folder in ("carpk", "models")
         for f in sorted((ROOT / folder).rglob("*.py"))}


def place(module):
    """(layer, place within it, its name in its folder or "") of a carpk module, or None."""
    inner = module.removeprefix("carpk.")
    folder, _, leaf = inner.partition(".")
    for layer, k, name in PLACES:
        if name in (inner, f"{folder}/*"):
            return layer, k, leaf
        if name == "cli*" and inner.startswith("cli"):
            return layer, k, inner
    return None


def imports(path):
    """Every absolute name a file imports, lazily or not, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module_name(path).split(".")
            package = package if path.name == "__init__.py" else package[:-1]
            above = package[:len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in FILES else base), node.lineno


def allowed(importer, imported):
    """Whether one module of carpk may import another."""
    if importer in OUTSIDE or importer == imported:
        return True
    mine, theirs = place(importer), place(imported)
    if theirs is None:  # the package itself, whose __init__ imports everything
        return importer.startswith("carpk.cli")
    if mine is None:  # told apart by its own test
        return True
    if mine[:2] == theirs[:2]:
        return theirs[2] == "" or importer == "carpk.cli"
    return theirs[:2] < mine[:2]


@pytest.mark.parametrize("module", FILES)
def test_a_file_has_a_place_in_the_layers(module):
    assert module in OUTSIDE or place(module) is not None, "add it to LAYERS"


@pytest.mark.parametrize("module", FILES)
def test_a_file_imports_only_from_below_or_from_its_left(module):
    lazily = {"carpk.structure"} if module == "carpk.registry" else set()
    wrong = [(f"{FILES[module].name}:{line}", module, name)
             for name, line in imports(FILES[module])
             if name.partition(".")[0] == "carpk" and name not in lazily
             and not allowed(module, name)]
    assert not [w for w in wrong if w[1:] not in EXCEPTIONS]
    excused = {w[1:] for w in wrong}
    assert {e for e in EXCEPTIONS if e[0] == module} <= excused, "take it off EXCEPTIONS"


def test_the_registry_imports_the_structure_only_inside_a_function():
    tree = ast.parse((ROOT / "carpk" / "registry.py").read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.ImportFrom)
                and node.module == "carpk.structure"]


@pytest.mark.parametrize("module", FILES)
def test_a_library_is_imported_only_behind_its_wall(module):
    wrong = [f"{FILES[module].name}:{line} imports {name}" for name, line in imports(FILES[module])
             if not any(module == door or module.startswith((f"{door}.", f"{door}_"))
                        for door in WALLS.get(name.partition(".")[0], (module,)))]
    assert not wrong


@pytest.mark.parametrize("module", [m for m in FILES if m.startswith("carpk.models.")])
def test_a_model_file_imports_nothing_but_its_words_and_jax_numpy(module):
    assert {name for name, _ in imports(FILES[module])} <= set(A_MODEL_MAY_IMPORT)


def test_no_module_shares_its_name_with_a_public_function():
    public = {node.name for module, file in FILES.items()
              if not module.startswith("carpk.cli")  # a command is not imported by its name
              for node in ast.parse(file.read_text(encoding="utf-8")).body
              if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    # leaves of a folder are read by their names as text: "exponential" is a law and a form
    assert not {m.removeprefix("carpk.") for m in FILES} & public


@pytest.mark.parametrize("module", FILES)
def test_no_module_has_an_empty_name(module):
    assert not EMPTY_WORDS & set(module.rpartition(".")[2].split("_"))


@pytest.mark.parametrize("module", FILES)
def test_a_file_begins_by_saying_what_it_is_for_and_ends_within_400_lines(module):
    text = FILES[module].read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "its first line says what it is for"
    assert text.count("\n") <= 400


@pytest.mark.parametrize(("importer", "imported", "expected"), [
    ("carpk.solve", "carpk.structure", True),
    ("carpk.structure", "carpk.solve", False),
    ("carpk.nonmem", "carpk.cohort", True),
    ("carpk.cohort", "carpk.nonmem", False),
    ("carpk.error_models.additive", "carpk.error_models", True),
    ("carpk.error_models.additive", "carpk.error_models.combined", False),
    ("carpk.fitting", "carpk.estimators", True),
    ("carpk.estimators.nuts", "carpk.fitting", False),
    ("carpk.cli", "carpk.cli_fit", True),
    ("carpk.cli_fit", "carpk.cli", False),
    ("carpk.cli", "carpk.reporting", True),
    ("carpk.solve", "carpk", False),
    ("carpk.cli", "carpk", True),
    ("carpk.__main__", "carpk.cli", True),
])
def test_the_guard_itself_tells_up_from_down(importer, imported, expected):
    assert allowed(importer, imported) is expected
