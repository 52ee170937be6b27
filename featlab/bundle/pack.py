"""A bundle as one file: a zip archive, nothing compressed, of the files that make it, without anybody's adaptation."""

from __future__ import annotations

import zipfile
from pathlib import Path

from featlab.bundle.bundle import BUNDLE_FILES, load_bundle
from featlab.cache.atomic import atomic_folder, atomic_path, sum_of
from featlab.errors import BundleError


def pack_bundle(folder: Path, out: Path) -> str:
    """Write a bundle, which is checked first, as one file; return its sha256, 64 hex digits.

    The same bundle gives the same bytes. A file that is there is replaced.

    Raises:
        BundleError: No bundle, or a damaged one.
    """
    load_bundle(folder)
    with atomic_path(out) as partial:
        with zipfile.ZipFile(partial, "w") as archive:
            for name in BUNDLE_FILES:
                # Without the day and the mode of the file.
                archive.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())
        return sum_of(partial)


def unpack_bundle(file: Path, out: Path) -> None:
    """Write the folder of a packed bundle, whole or not at all, after reading it as a bundle.

    Raises:
        BundleError: No packed bundle, a damaged one, or something at ``out``.
    """
    if out.exists():
        raise BundleError(f"{out}: is there already; name another folder")
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            plain = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
            if sorted(part.filename for part in parts) != sorted(BUNDLE_FILES) or not plain:
                raise BundleError(f"{file}: not what featlab bundle pack writes")
            with atomic_folder(out) as draft:
                archive.extractall(draft, BUNDLE_FILES)
                load_bundle(draft)
    except BundleError:
        raise
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleError(f"{file}: can't be read as a packed bundle ({error}); get it again") from error
