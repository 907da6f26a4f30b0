"""Includes, overrides, origins and limits of recipes, on files made by each test."""

from pathlib import Path

import pytest

from genzoo.core.errors import RecipeError
from genzoo.core.recipe import load_recipe, recipe_from, with_overrides
from genzoo.core.recipe_text import MAX_BYTES, MAX_DEPTH, MAX_VALUES


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "configs/models/small.yaml": "name: net\ndepth: 2\nwidth: 8\n",
        "configs/models/wide.yaml": "base: models/small\nwidth: 32\n",
        "configs/models/other.yaml": "name: mlp\nlayers: 3\nclasses: 7\n",
        "configs/optim/adam.yaml": "name: adam\nlr: 1e-4\nbetas: [0.9, 0.999]\n",
        "recipes/first.yaml": (
            "name: first\nmodel: {base: models/small, classes: auto}\n"
            "optim: {base: optim/adam}\ndata:\n  name: folder\n  root: ???\n  size: 16\n"
            "report: [{name: grid, rows: 2}, {name: fid}]\n"
        ),
        "recipes/second.yaml": "base: first\nname: second\nmodel: {base: models/wide}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_base_includes_a_noun_under_the_sections_own_keys(project: Path) -> None:
    recipe = load_recipe(project / "recipes/first.yaml")
    assert recipe.data["model"] == {"name": "net", "depth": 2, "width": 8, "classes": "auto"}
    assert recipe.data["optim"]["lr"] == pytest.approx(1e-4)
    assert isinstance(recipe.data["optim"]["lr"], float)


def test_a_recipe_on_top_of_a_recipe_swaps_the_noun_and_keeps_the_other_keys(project: Path) -> None:
    recipe = load_recipe(project / "recipes/second.yaml")
    assert recipe.data["model"] == {"name": "net", "depth": 2, "width": 32, "classes": "auto"}
    assert recipe.name == "second"
    assert recipe.data["data"]["size"] == 16


def test_a_recipe_may_give_its_keys_short_names_for_overrides(project: Path) -> None:
    text = "base: first\naliases: {pictures: data.root, m: model}\n"
    (project / "recipes/short.yaml").write_text(text)
    recipe = load_recipe(project / "recipes/short.yaml", ["pictures=mine", "m.depth=5", "data.size=8"])
    assert recipe.data["data"] == {"name": "folder", "root": "mine", "size": 8}
    assert recipe.data["model"]["depth"] == 5
    assert "aliases" not in recipe.data
    assert recipe.origins["data.root"] == "override data.root"
    (project / "recipes/short.yaml").write_text("base: first\naliases: [pictures]\n")
    with pytest.raises(RecipeError, match="aliases: must map names to dotted keys"):
        load_recipe(project / "recipes/short.yaml")


def test_every_value_knows_its_file(project: Path) -> None:
    recipe = load_recipe(project / "recipes/second.yaml", ["optim.lr=3e-5"])
    assert recipe.origins["model.depth"].endswith("configs/models/small.yaml")
    assert recipe.origins["model.width"].endswith("configs/models/wide.yaml")
    assert recipe.origins["model.classes"].endswith("recipes/first.yaml")
    assert recipe.origins["optim.lr"] == "override optim.lr"
    assert recipe.origins.keys() >= {"report.0.rows", "optim.betas.1"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("3", 3), ("true", True), ("null", None), ("a b", "a b"), ("'1'", "1"),
        ("[1, 2.5]", [1, 2.5]), ("{u: {v: 1}}", {"u": {"v": 1}}), ("x=y", "x=y"), ("/a/a-b_c", "/a/a-b_c"),
    ],
)  # fmt: skip
def test_override_values_are_typed_as_yaml(project: Path, text: str, value: object) -> None:
    recipe = load_recipe(project / "recipes/first.yaml", [f"data.extra={text}"])
    assert recipe.data["data"]["extra"] == value
    assert type(recipe.data["data"]["extra"]) is type(value)


@pytest.mark.parametrize(("text", "read"), [("010", 8), ("-0_7", -7), ("1:30", 90), ("[2, 16:9]", 969)])
def test_numbers_that_yaml_reads_in_another_base_are_refused(project: Path, text: str, read: int) -> None:
    recipe = project / "recipes/first.yaml"
    with pytest.raises(RecipeError, match=rf"override data.size: YAML reads .* as the number {read}"):
        load_recipe(recipe, [f"data.size={text}"])
    (project / "recipes/third.yaml").write_text(f"base: first\ndata: {{size: {text}}}\n")
    with pytest.raises(RecipeError, match=rf"third.yaml: YAML reads .* as the number {read}"):
        load_recipe(project / "recipes/third.yaml")
    quoted = load_recipe(recipe, ['data.root="010"', "data.size=0x10", "model.width=1_000"])
    assert (quoted.data["data"]["root"], quoted.data["data"]["size"]) == ("010", 16)
    assert quoted.data["model"]["width"] == 1000


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_recipe_may_begin_with_a_mark(project: Path, encoding: str) -> None:
    (project / "recipes/marked.yaml").write_text("base: first\nname: größer\n", encoding=encoding)
    assert load_recipe(project / "recipes/marked.yaml").data["name"] == "größer"


def test_overrides_reach_list_items_and_make_sections(project: Path) -> None:
    recipe = load_recipe(
        project / "recipes/first.yaml", ["report.0.rows=7", "preview.every=5", "data.root=x"]
    )
    assert recipe.data["report"][0] == {"name": "grid", "rows": 7}
    assert recipe.data["preview"] == {"every": 5}
    assert recipe.missing() == []


@pytest.mark.parametrize("override", ["model.base=models/other", "model={base: models/other}", "model=other"])
def test_another_noun_keeps_what_it_has_itself_and_drops_the_rest(project: Path, override: str) -> None:
    (project / "recipes/own.yaml").write_text("base: first\nmodel: {depth: 5, wings: 2}\n")
    recipe = load_recipe(project / "recipes/own.yaml", [override])
    assert recipe.data["model"] == {"name": "mlp", "layers": 3, "classes": "auto"}
    same = load_recipe(project / "recipes/own.yaml", [override.replace("other", "wide")])
    assert same.data["model"] == {"name": "net", "depth": 5, "width": 32, "classes": "auto", "wings": 2}


def test_a_section_may_be_given_by_a_name_alone(project: Path) -> None:
    first = project / "recipes/first.yaml"
    assert load_recipe(first, ["codec=of_mine"]).data["codec"] == {"name": "of_mine"}
    assert load_recipe(first, ["codec=identity"]).data["codec"]["name"] == "identity"
    assert load_recipe(first, ["data=my_own"]).data["data"] == {"name": "my_own"}
    assert load_recipe(first, ["optim=adam"]).data["optim"]["betas"] == [0.9, 0.999]
    assert load_recipe(first, ["model=models/wide"]).data["model"]["width"] == 32
    assert load_recipe(first, ["codec=null"]).data["codec"] is None
    assert load_recipe(first, ["name=small"]).data["name"] == "small"


def test_what_is_no_path_is_said_to_be_none() -> None:
    with pytest.raises(RecipeError, match=r"not a dict(?s:.*)recipe_from"):
        load_recipe({"name": "x"})  # type: ignore[arg-type]


def test_override_of_base_keeps_siblings_and_of_name_drops_them(project: Path) -> None:
    swapped = load_recipe(project / "recipes/first.yaml", ["model.base=models/other"])
    assert swapped.data["model"] == {"name": "mlp", "layers": 3, "classes": "auto"}
    renamed = load_recipe(project / "recipes/first.yaml", ["data.name=digits"])
    assert renamed.data["data"] == {"name": "digits"}
    through_base = load_recipe(project / "recipes/first.yaml", ["model.name=mlp", "model.layers=1"])
    assert through_base.data["model"] == {"name": "mlp", "layers": 1}


@pytest.mark.parametrize("name", ["model.name=mlp", "model.base=models/other", "model=other", "model=mlp"])
def test_overrides_of_one_line_say_a_section_in_any_order(project: Path, name: str) -> None:
    first = project / "recipes/first.yaml"
    after = load_recipe(first, [name, "model.layers=1", "model.classes=7"])
    before = load_recipe(first, ["model.layers=1", name, "model.classes=7"])
    assert (before.data, before.data["model"]["layers"]) == (after.data, 1)
    again = load_recipe(first, ["model.layers=1", "model.name=net", name, "model.classes=7"])
    assert again.data == after.data
    assert with_overrides(load_recipe(first), ["model.layers=1", name, "model.classes=7"]).data == after.data


def test_a_section_that_is_replaced_as_a_whole_forgets_what_was_said_before(project: Path) -> None:
    first = project / "recipes/first.yaml"
    assert load_recipe(first, ["codec.path=x", "codec=null"]).data["codec"] is None
    data = load_recipe(first, ["data.size=3", "data={name: digits, size: 4}"]).data["data"]
    assert data == {"name": "digits", "size": 4}


def test_a_changed_name_in_a_derived_recipe_replaces_the_node(project: Path) -> None:
    (project / "recipes/third.yaml").write_text("base: first\noptim: {name: sgd, momentum: 0.9}\n")
    assert load_recipe(project / "recipes/third.yaml").data["optim"] == {"name": "sgd", "momentum": 0.9}


def test_the_same_name_in_a_derived_recipe_keeps_the_nodes_keys(project: Path) -> None:
    (project / "recipes/third.yaml").write_text("base: first\ndata: {name: folder, size: 24}\n")
    assert load_recipe(project / "recipes/third.yaml").data["data"] == {
        "name": "folder",
        "root": "???",
        "size": 24,
    }


def test_missing_values_are_listed(project: Path) -> None:
    assert load_recipe(project / "recipes/first.yaml").missing() == ["data.root"]


def test_recipe_text_loads_back_to_the_same_data(project: Path) -> None:
    recipe = load_recipe(project / "recipes/second.yaml", ["data.root=no", "data.code='007'", "data.x=1e-7"])
    copy = project / "copy.yaml"
    copy.write_text(recipe.to_yaml())
    assert load_recipe(copy).data == recipe.data
    assert load_recipe(copy).sha256 == recipe.sha256


def test_replaced_sets_dotted_keys_and_leaves_the_original(project: Path) -> None:
    recipe = load_recipe(project / "recipes/first.yaml")
    filled = recipe.replaced({"model.classes": 10}, "facts")
    assert filled.data["model"]["classes"] == 10
    assert filled.origins["model.classes"] == "facts"
    assert recipe.data["model"]["classes"] == "auto"


def test_hash_ignores_order_and_sees_values() -> None:
    assert recipe_from({"a": 1, "b": 2}).sha256 == recipe_from({"b": 2, "a": 1}).sha256
    assert recipe_from({"a": 1}).sha256 != recipe_from({"a": 2}).sha256


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- 1\n- 2\n", "mapping"),
        ("a: [1\n", "line"),
        ("a: 1\na: 2\n", "duplicate"),
        ("on: 1\n", "quote"),
        ("3: x\n", "quote"),
        ("a.b: 1\n", "without dots"),
        ("a: ${oc.env:HOME}\n", "interpolation"),
        ('a: "\\x24{oc.env:HOME}"\n', "interpolation"),
        ("a: !!python/object/apply:os.system [ls]\n", "constructor"),
        ("a: &x [*x]\n", "a"),
        ("model: {base: models/smal}\n", "models/small"),
        ("model: {base: ../../../etc/passwd}\n", "no file"),
        ("model: {base: 3}\n", "base"),
        ("base: itself\n", "circle"),
        ("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested"),
        ("a: [" + "1," * (2 * MAX_VALUES + 1) + "]", "values"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 2001-01-01\n", "a"),
        ("a: " + "x" * MAX_BYTES, "larger"),
        ("{root: ???}", "quotes"),
    ],
)
def test_bad_files_give_a_recipe_error_that_names_the_file(project: Path, content: str, words: str) -> None:
    path = project / "recipes/itself.yaml"
    path.write_text(content)
    if content == "a: 2001-01-01\n":  # a date is text or refused, never an object
        assert load_recipe(path).data["a"] == "2001-01-01"
        return
    with pytest.raises(RecipeError, match=r"itself\.yaml") as caught:
        load_recipe(path)
    assert words in str(caught.value)


def test_alias_bombs_and_binary_files_are_refused(project: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    path = project / "bomb.yaml"
    path.write_text(bomb)
    with pytest.raises(RecipeError, match=r"bomb\.yaml"):
        load_recipe(path)
    for content in (b"\x89PNG\r\n\x1a\n\xff", b"\xff\xfe\x00\x01\x00", b"\xff\xfe\x00\xd8"):
        path.write_bytes(content)
        with pytest.raises(RecipeError, match="UTF-8"):
            load_recipe(path)


def test_include_bombs_are_refused(project: Path) -> None:
    for level in range(6):
        below = ", ".join([f"models/b{level + 1}"] * 10)
        (project / f"configs/models/b{level}.yaml").write_text(f"base: [{below}]\n")
    (project / "configs/models/b6.yaml").write_text("x: 1\n")
    path = project / "recipes/bomb.yaml"
    path.write_text("model: {base: models/b0}\n")
    with pytest.raises(RecipeError, match="files are included"):
        load_recipe(path)


@pytest.mark.parametrize(
    "override", ["steps", "=3", "a b=3", "a..b=1", "name.x=1", "report.9.rows=1", "a=[", "a=${x}"]
)
def test_bad_overrides_are_named(project: Path, override: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe(project / "recipes/first.yaml", [override])


def test_a_missing_recipe_suggests_the_nearest(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert load_recipe("first").name == "first"
    with pytest.raises(RecipeError, match="did you mean 'first'"):
        load_recipe("frist")
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(project / "recipes")
    with pytest.raises(RecipeError, match="no recipe"):
        load_recipe("x" * 5000)
    with pytest.raises(RecipeError, match="no recipe"):
        load_recipe("nul\0byte")


def test_a_section_that_is_not_a_mapping_is_named() -> None:
    with pytest.raises(RecipeError, match="train: must be a mapping"):
        recipe_from({"train": 3}).section("train")
    assert recipe_from({"train": None}).section("train") == {}
