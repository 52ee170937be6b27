"""Setting keys in a section of a TOML text: the rest stays byte for byte."""

import tomllib

from featlab.config.load import SECTIONS, Config, config_template, load_config, section_text, set_in_section, toml_value
from featlab.config.options import convert, options_of
from featlab.errors import ConfigError

SECTION = ("adapt", "shot")
FILE = """\
# Mine.
cache = "faces.h5"   # where it lies

[adapt.shot] # tuned by hand
  lr   = 0.01\t# was 0.1
name = "a # b"
# epochs = 15

[head]
lr = 0.001
"""


def edited(text, values, section=SECTION):
    return set_in_section(text, section, values, "featlab.toml")


def test_a_key_is_replaced_or_added_and_nothing_else():
    assert edited(FILE, {"lr": 0.003}) == FILE.replace("lr   = 0.01\t", "lr   = 0.003\t")
    # A sign in a string is no comment.
    assert edited(FILE, {"name": "c"}) == FILE.replace('"a # b"', '"c"')
    # The value that is there already changes no byte.
    text = FILE.replace("0.01", "1e-2")
    assert edited(text, {"lr": 0.01, "name": "a # b"}) == text
    assert edited(FILE, {"lr": 0.003, "epochs": 5, "decay": True}) == FILE.replace("0.01", "0.003").replace(
        "# epochs = 15\n", "# epochs = 15\nepochs = 5\ndecay = true\n"
    )
    assert edited(FILE, {"lr": 0.1}, ("adapt", "nrc")) == FILE + "\n[adapt.nrc]\nlr = 0.1\n"
    assert edited("", {"lr": 0.1}) == "[adapt.shot]\nlr = 0.1\n"
    assert edited("a = 1", {"lr": 0.1}) == "a = 1\n\n[adapt.shot]\nlr = 0.1\n"
    # A section of a longer name is another.
    text = "[adapt.shot-im]\nlr = 1.0\n"
    assert edited(text, {"lr": 0.1}) == text + "\n[adapt.shot]\nlr = 0.1\n"


def test_line_ends_byte_order_marks_and_long_lists_stay():
    for text in ("[adapt.shot]", "[adapt.shot]\nlr = 1", "[adapt.shot]\n\n\n", "[adapt.shot]\n# x"):
        before = f"a = 1\n{text}".replace("\n", "\r\n")
        after = edited(before, {"k": 2})
        assert after.count("\n") == after.count("\r\n")
        assert after.replace("k = 2\r\n", "", 1).rstrip() == before.rstrip()
    assert edited("\ufeff[adapt.shot]\nlr = 1\n", {"lr": 2}) == "\ufeff[adapt.shot]\nlr = 2\n"
    text = '[adapt.shot]\nname = "a\u2028b\x85c"\nlr = 1\n'
    assert edited(text, {"lr": 2}) == text.replace("lr = 1", "lr = 2")
    text = '[adapt.shot]\nwords = [\n  "a", # one\n  "b",\n]\n\n[head]\n'
    assert edited(text, {"lr": 1}) == text.replace("]\n\n", "]\nlr = 1\n\n")


def test_a_section_is_edited_however_it_is_written():
    for text in (
        "adapt.shot.lr = 1\n",
        "adapt = { shot = { lr = 1 } }\n",
        "[adapt]\nshot.lr = 1\n",
        "[adapt]\nshot = { lr = 1 }\n",
    ):
        assert edited(text, {"lr": 2}) == text.replace("1", "2")
    assert edited("[adapt.shot]\nlr = [\n1,\n]\n", {"lr": 2}) == "[adapt.shot]\nlr = 2\n"
    # What looks like a section, or a key, within a text is neither.
    text = 'x = """\n[adapt.shot]\nlr = 1\n"""\n'
    assert edited(text, {"lr": 2}) == f"{text}\n[adapt.shot]\nlr = 2\n"
    text = '[adapt.shot]\nx = """\nlr = 1\n"""\n'
    assert edited(text, {"lr": 2}) == f"{text}lr = 2\n"


def test_a_text_without_a_place_for_the_section_or_no_toml_is_refused(refused):
    for text in ("[[adapt.shot]]\nlr = 1\n", "adapt = 3\n", "adapt = { nrc = { k = 3 } }\n"):
        with refused(ConfigError, "featlab.toml", "no place for a section [adapt.shot]"):
            edited(text, {"lr": 2})
    with refused(ConfigError, "featlab.toml: not valid TOML"):
        edited("a =\n", {"lr": 2})


def test_a_value_is_read_back_as_it_was():
    for value in (1, 0.1, 1e-05, 1e22, True, False, "none", 'a "b" \\', "ä", [1, 2], ["a"], []):
        assert tomllib.loads(f"v = {toml_value(value)}") == {"v": value}
    # An option without a value is the word none.
    assert convert("v", int | None, tomllib.loads(f"v = {toml_value(None)}")["v"]) is None
    # An odd name is quoted.
    text = section_text(("adapt", "my method"), {"v": (1, 2)})
    assert tomllib.loads(text) == {"adapt": {"my method": {"v": [1, 2]}}}


def test_the_template_shows_every_option_with_its_default_and_says_with_what_it_is_read(tmp_path):
    text = config_template()
    path = tmp_path / "featlab.toml"
    for lines in (text, text.replace("\n# ", "\n")):
        path.write_text(lines)
        assert load_config(path) == Config()
    assert len(load_config(path).given) > 60
    for section in SECTIONS:
        for name, declared in options_of(type(getattr(Config(), section))).items():
            assert declared.help, f"{section}.{name}"
            assert f"\n# {name} = " in text or (section, name) == ("adapt", "options")
    assert "## Only with form = joint or form = mlp:\n" in text
