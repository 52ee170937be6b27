"""Tables, whatever file they are in: what the cells of their columns say: names, numbers, lists of numbers, nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from featlab.cache.schema import from_cell
from featlab.errors import InputError

# As pandas, R, MATLAB, Excel, SPSS, Stata and the C libraries of Windows and Linux print what is missing.
MISSING = (
    r"(?i)^(?:|[.?]|--?|<?n/?\.?a\.?>?|nat|null|none|nil|missing|find_failed|[+-]?nan(?:\(\w*\))?"
    r"|[+-]?1\.#(?:ind|[qs]nan)\w*|#(?:n/?a(?: n/a)?|num!|value!|div/0!|null!|ref!|name\?))$"
)
_MISSES = re.compile(MISSING)
_NUMBER = r"(?i)^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)$"
_ONE = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
# Without brackets, four numbers or more: three may be a date.
_LIST = rf"(?s)^(?:(?:array\(|tensor\()?\[.*[\])]|\(.*[,\s].*\)|{_ONE}(?:(?:\s+|\s*[,;|]\s*){_ONE}){{3,}})$"
# Brackets, commas and blanks, and what NumPy and PyTorch print around numbers.
_BETWEEN = r"(?:np\.float(?:16|32|64)|array|tensor)\(|,?\s*(?:dtype|device)=[^)\]]*|[\[\](),;|\s]+"
_WORDS = ("", "na", "nan", "n/a", "null", "none")
_USUAL = ["NaN", *(form for word in _WORDS for form in {word, word.upper(), word.title()})]
_MUCH = 1 << 30
_IS_NUMBER, _IS_LIST = (re.compile(pattern) for pattern in (_NUMBER, _LIST))


@dataclass(frozen=True, eq=False)
class Columns:
    """A table that can be read column by column, whatever file it is in.

    ``batches`` yields Arrow arrays of the columns at some places; ``most`` bounds the rows. A column of ``never`` is no
    feature unless it is asked for. ``held`` is the column of lists where it is in memory already.
    """

    path: Path
    header: tuple[str, ...]
    most: int
    batches: Callable[[Sequence[int]], Iterator[list[Any]]]
    where: Callable[[int], str]
    never: frozenset[str] = frozenset()
    landmarks: NDArray[np.float32] | None = None
    held: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the array of a ``.npy``, under the name "", or those of a ``.npz``; pickled objects are never loaded."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        # Packed to fill the memory: arrays of numbers don't become so small.
        if size > max(_MUCH, 100 * path.stat().st_size):
            packed = f"{path} is small and unpacks to {size >> 20:,} MB"
            raise InputError(f"{packed}, as no features do; save it without packing")
        with loaded:
            arrays = dict(loaded)
        # What is no array in the archive comes as bytes.
        if all(isinstance(array, np.ndarray) for array in arrays.values()):
            return arrays
    except InputError:
        raise
    except Exception as error:
        # NumPy lets through what zip and its header parser raise on a broken file (BadZipFile, SyntaxError, ...).
        if "pickle" in str(error) and is_zipfile(path):
            raise InputError(
                f"{path} holds pickled objects, which are never loaded; save names as text: np.array(names, dtype=str)"
            ) from None
    raise InputError(f"{path} isn't a {path.suffix.lower()} array of numbers; save it with numpy.save or numpy.savez")


def is_missing(text: str) -> bool:
    """Whether a cell says that there is nothing: empty, NA, nan, -nan(ind), None, #N/A, FIND_FAILED, …"""
    return _MISSES.match(text.strip()) is not None


def as_text(value: Any) -> str:
    """Return a name as text: 3.0 (a whole number beside missing ones) is "3"; None and NaN are empty."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8").strip()
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else str(value)
    return str(value).strip()


def names(cells: Any, but: str = "", gone: set[str] | None = None) -> list[str]:
    """Return the names in (n,) cells, empty where missing (such words go into ``gone``), but for the word ``but``."""

    def name(value: Any) -> str:
        text = from_cell(as_text(value))
        if text == but or not is_missing(text):
            return text
        if gone is not None and text:
            gone.add(text)
        return ""

    named: list[str] = _each(cells, name, object).tolist()
    return named


def zeros(cells: Any) -> NDArray[np.bool_]:
    """Return where an Arrow array (n,) says 0 or false, as a number, a flag or text."""

    def zero(value: Any) -> bool:
        text = as_text(value).lower()
        return text in ("false", "no") or (_IS_NUMBER.match(text) is not None and float(text) == 0)

    return _each(cells, zero, np.bool_)


def _each(cells: Any, what: Callable[[Any], Any], dtype: type) -> NDArray[Any]:
    """Return what each cell gives; equal cells are asked once."""
    from pyarrow import types

    if types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    coded = cells.dictionary_encode(null_encoding="encode")
    known: NDArray[Any] = np.array([what(value) for value in coded.dictionary.to_pylist()], dtype=dtype)
    each: NDArray[Any] = known[coded.indices.to_numpy()]
    return each


def kind_of(data_type: Any) -> str:
    """Return what an Arrow column may hold: "text", "number", "list" (of numbers) or "other"."""
    from pyarrow import types

    def is_number(kind: Any) -> bool:
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))

    if types.is_dictionary(data_type):
        data_type = data_type.value_type
    if types.is_string(data_type) or types.is_large_string(data_type):
        return "text"
    if is_number(data_type):
        return "number"
    is_list = types.is_list(data_type) or types.is_large_list(data_type) or types.is_fixed_size_list(data_type)
    return "list" if is_list and is_number(data_type.value_type) else "other"


def is_list(text: str) -> bool:
    """Whether a cell is a list of numbers, as Python, NumPy or PyTorch print it, or four and more without brackets."""
    inside = re.sub(_BETWEEN, " ", text).split()
    return _IS_LIST.match(text) is not None and all(
        _IS_NUMBER.match(item) or is_missing(item) or item == "..." for item in inside
    )


def numbers(cells: Any) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the numbers in (n,) cells, NaN where there are none, and the places of text that says something."""
    import pyarrow as arrow
    import pyarrow.compute as compute

    if arrow.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if kind_of(cells.type) != "text":
        return _floats(cells), np.empty(0, dtype=np.intp)
    cells = compute.utf8_trim_whitespace(cells)
    # Most columns hold numbers alone, or numbers and usual words for nothing: both ways are many times as fast.
    for usual in (False, True):
        with suppress(arrow.ArrowInvalid):
            there = compute.if_else(compute.is_in(cells, arrow.array(_USUAL)), None, cells) if usual else cells
            return _floats(there.cast(arrow.float64())), np.empty(0, dtype=np.intp)
    fits = compute.match_substring_regex(cells, _NUMBER).fill_null(False)
    gone = compute.match_substring_regex(cells, MISSING).fill_null(True)
    text = np.flatnonzero(~compute.or_(fits, gone).to_numpy(zero_copy_only=False))
    return _floats(compute.if_else(fits, cells, None).cast(arrow.float64())), text


def lists(cells: Any, width: int, where: Callable[[int], str]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return (n, D) values of lists of one length (0: not known yet), NaN without one, and where other cells are."""
    import pyarrow.compute as compute

    bad = np.empty(0, dtype=np.intp)
    if kind_of(cells.type) == "text":
        cells = compute.utf8_trim_whitespace(cells).fill_null("")
        inside = compute.utf8_trim_whitespace(compute.replace_substring_regex(cells, _BETWEEN, " "))
        there = compute.match_substring_regex(cells, _LIST)
        absent = compute.or_(compute.match_substring_regex(cells, MISSING), compute.equal(inside, ""))
        bad = np.flatnonzero(~compute.or_(there, absent).to_numpy(zero_copy_only=False))
        there = compute.and_not(there, absent)
        cells = compute.utf8_split_whitespace(compute.if_else(there, inside, None))
    lengths = compute.list_value_length(cells).fill_null(0).to_numpy(zero_copy_only=False)
    filled = np.flatnonzero(lengths)
    width = width or (int(lengths[filled[0]]) if len(filled) else 0)
    for place in filled[lengths[filled] != width].tolist():
        raise InputError(f"{where(place)}: a list of {lengths[place]} values, and earlier ones have {width}")
    # A null hides no values in what `flatten` returns, not even in a list of a fixed size.
    items = cells.flatten()
    values, wrong = numbers(items)
    for place in wrong.tolist():
        if items[place].as_py() == "...":
            raise InputError(f"{where(int(filled[place // width]))}: the list was cut short ('...') as it was printed")
    block = np.full((len(cells), width), np.nan, dtype=np.float32)
    block[filled] = values.reshape(len(filled), width)
    return block, np.union1d(bad, filled[wrong // width]) if len(wrong) else bad


def _floats(column: Any) -> NDArray[np.float32]:
    import pyarrow as arrow

    # Halves know no null in Arrow's own conversion, and whole numbers none in NumPy's.
    values = column if arrow.types.is_floating(column.type) else column.cast(arrow.float64(), safe=False)
    floats: NDArray[np.float32] = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return floats
