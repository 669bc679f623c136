"""Licenses by the names that the Hub knows them by."""

from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import ModelCard
from yaml import YAMLError

# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m",
    "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2",
    "fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "grok2-community",
    "h-research", "intel-research", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2", "llama3",
    "llama3.1", "llama3.2", "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by",
    "ofl-1.1", "openmdw-1.0", "openrail", "openrail++", "osl-3.0", "other", "pddl", "postgresql", "unknown",
    "unlicense", "wtfpl", "zlib",
}  # fmt: skip


def check_license(license: str) -> str:
    """Return the license; ValueError, with the nearest names, if the Hub knows none of that name."""
    if license in LICENSES:
        return license
    near = get_close_matches(str(license).lower().replace(" ", "-"), LICENSES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "'other' is for those that have no name there."
    raise ValueError(f"the Hub knows no license {license!r}: {hint}")


def license_on_card(name: str) -> str | None:
    """Return the license in the metadata of a repo's card; None if it has no card, or the card does not tell."""
    card = Path(name, "README.md") if Path(name).is_dir() else name
    try:
        license = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict().get("license")
    except (OSError, ValueError, YAMLError):
        return None
    return license if isinstance(license, str) else None
