"""Lists, tables and JSON from editors and spreadsheets: marks, other encodings, line ends, delimiters."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.data.captioned import all_captioned, listed_pictures, read_collection
from genzoo.data.class_lists import read_class_list
from genzoo.data.text_files import read_json, read_lines, read_table
from genzoo.families.custom_diffusion.data.concept_list import read_concepts
from genzoo.families.custom_diffusion.data.pictures import regularisation_pictures

MARKED = ("utf-8", "utf-8-sig", "utf-16")


def pictures(folder: Path, num: int) -> Path:
    folder.mkdir()
    for index in range(num):
        Image.new("RGB", (9, 7), (index * 20, 0, 0)).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("encoding", MARKED)
def test_a_mark_at_the_beginning_is_no_part_of_the_text(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "text"
    file.write_text("ä\r\n\r\nb\r\n\r\n", encoding=encoding, newline="")
    assert read_lines(file) == ["ä", "", "b"]
    file.write_text('{"ä": 1}', encoding=encoding)
    assert read_json(file) == {"ä": 1}
    file.write_text("cat\ndog\n", encoding=encoding)
    assert read_class_list(file, ["cat", "dog"], option="include_classes") == ["cat", "dog"]


@pytest.mark.parametrize("encoding", MARKED)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_tables_of_spreadsheets_are_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    folder, row = pictures(tmp_path / "d", 2), delimiter.join
    text = "\r\n".join(
        [row(["id", "file_name", "caption"]), row(["7", "0.png", "ein Hüt"]), row(["8", "1.png", ""])]
    )
    (folder / "metadata.csv").write_text(text + "\r\n", encoding=encoding, newline="")
    assert [(one.path.name, one.caption) for one in all_captioned(folder)] == [
        ("0.png", "ein Hüt"),
        ("1.png", ""),
    ]
    assert [one.path.name for one in read_collection(folder)] == ["0.png"]


def test_a_cell_too_many_is_an_error_and_quotes_hold_delimiters(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text('file_name,caption\n0.png,"a, b"\n1.png,a, b\n')
    with pytest.raises(DataError, match="line 3 of the table has more cells"):
        read_table(file, ("file_name",))
    file.write_text('file_name,caption\n0.png,"a, b"\n1.png\n')
    assert read_table(file, ("file_name",)) == [
        {"file_name": "0.png", "caption": "a, b"},
        {"file_name": "1.png", "caption": ""},
    ]
    file.write_text("picture,words\n0.png,a\n")
    with pytest.raises(DataError, match="its columns are 'picture', 'words'"):
        read_collection(file)


BROKEN = {
    "a quote that nothing closes": ('file_name,caption\n0.png,"a\n1.png,b\n', r'close every "'),
    "text behind a quote": ('file_name,caption\n0.png,"a"b\n', r"the table cannot be read"),
    "two columns of one name": ("file_name,caption,Caption\n0.png,a,b\n", r"'caption' stands there twice"),
    "names alone": ("file_name,caption\n", r"no rows below its names"),
    "nothing": ("", r"no rows below its names"),
    "a NUL": ("file_name,caption\n0.png,a\0b\n", r"the table holds NUL characters"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_table_that_would_be_misread_is_an_error(tmp_path: Path, what: str) -> None:
    text, said = BROKEN[what]
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_table(tmp_path / "t.csv", ("file_name", "caption"))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_wide_text_without_a_mark_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_text("file_name,caption\n0.png,a\n", encoding=encoding)
    with pytest.raises(DataError, match=r"(?s)NUL characters.*save it as UTF-8"):
        read_table(tmp_path / "t.csv", ("file_name",))


@pytest.mark.parametrize("first", ["sep=;\n", "SEP=;\n", "\n", ""])
def test_columns_are_found_whatever_a_spreadsheet_puts_around_them(tmp_path: Path, first: str) -> None:
    folder = pictures(tmp_path / "d", 2)
    text = "File_Name; CAPTION ;URL\n0.png;a, b;http://x\n1.png;c;\n"
    (folder / "metadata.csv").write_text(first + text)
    found = read_collection(folder)
    assert [(one.path.name, one.caption, one.url) for one in found] == [
        ("0.png", "a, b", "http://x"),
        ("1.png", "c", ""),
    ]


def test_pictures_are_found_by_paths_of_windows(tmp_path: Path) -> None:
    pictures(tmp_path / "sub", 2)
    (tmp_path / "metadata.csv").write_text("file_name,caption\nsub\\0.png,a\n.\\sub\\1.png,b\n")
    assert [one.path.is_file() for one in read_collection(tmp_path)] == [True, True]
    (tmp_path / "images.txt").write_text("C:\\old\\0.png\n")
    (tmp_path / "caption.txt").write_text("a\n")
    (tmp_path / "sub").rename(tmp_path / "images")
    assert listed_pictures(tmp_path)[0] == [str(tmp_path / "images" / "0.png")]


def test_a_key_that_an_object_has_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"instance_prompt": "a", "instance_prompt": "b"}]')
    with pytest.raises(DataError, match="'instance_prompt' stands there twice"):
        read_json(tmp_path / "a.json")
    (tmp_path / "t.jsonl").write_text('{"file_name": "0.png", "text": "a", "text": "b"}\n')
    with pytest.raises(DataError, match=r"(?s)line 1 is not JSON.*'text' stands there twice"):
        read_table(tmp_path / "t.jsonl", ("file_name",))


def test_what_is_not_utf_8_is_named_and_never_replaced(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "d", 1)
    (folder / "0.txt").write_text("ein Hüt", encoding="latin-1")
    with pytest.raises(DataError, match="the caption is not UTF-8") as caught:
        read_collection(folder)
    assert str(caught.value.where).endswith("0.txt")
    (folder / "0.txt").write_text("ein Hüt\n", encoding="utf-8-sig")
    assert read_collection(folder)[0].caption == "ein Hüt"
    with pytest.raises(DataError, match="no concept list cannot be read"):
        read_json(tmp_path / "absent.json", "no concept list")


def test_pairs_of_lists_never_shift(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "d", 3)
    names = [str(folder / f"{index}.png") for index in range(3)]

    def write(files: list[str], captions: list[str]) -> None:
        (folder / "images.txt").write_text("\n".join(files) + "\n\n", encoding="utf-8-sig")
        (folder / "caption.txt").write_text("\n".join(captions) + "\n", encoding="utf-8-sig")

    odd = ["a\u2028b", "c\x0cd", "e\x85f"]  # an editor shows three lines
    write(names, odd)
    assert listed_pictures(folder) == (names, odd)
    assert regularisation_pictures(folder, None).caption(0) == odd[0]
    write([names[0], "", names[1]], ["a", "", "b"])
    assert listed_pictures(folder) == (names[:2], ["a", "b"])
    write([names[0], "", names[1]], ["a", "b", ""][:3] + ["c"])
    with pytest.raises(DataError, match=r"images.txt has 3 lines and caption.txt 4"):
        listed_pictures(folder)
    write([names[0], "", names[1]], ["a", "b", "c"])
    with pytest.raises(DataError, match=r"line 2 of images.txt is empty"):
        listed_pictures(folder)


@pytest.mark.parametrize("encoding", MARKED)
def test_a_concept_list_with_a_mark_is_read(tmp_path: Path, encoding: str) -> None:
    pictures(tmp_path / "cat", 2)
    file = tmp_path / "concepts.json"
    file.write_text('[{"instance_prompt": "<new1> cat", "instance_data_dir": "cat"}]', encoding=encoding)
    assert read_concepts(file)[0].modifier_tokens == ["<new1>"]
    file.write_text("[,]", encoding=encoding)
    with pytest.raises(DataError, match="the concept list is not JSON"):
        read_concepts(file)
