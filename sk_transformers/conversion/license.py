"""Under which license converted weights are: that of their source."""

from ..hub.licenses import check_license
from .checkpoint import Checkpoint
from .errors import CheckpointError


def choose_license(source: Checkpoint, override: str | None) -> str:
    """Return the license of a source's weights, as the Hub names it.

    Args:
        source: that may tell its license.
        override: what the user says, who then is believed.

    Raises:
        CheckpointError: if nobody tells it, or the Hub knows none of that name.
    """
    license = override or source.license
    if license is None:
        raise CheckpointError(
            f"{source.name} does not say under which license its weights are, and a card has to: find it where you got"
            " them, and pass --license, such as --license apache-2.0."
        )
    try:
        return check_license(license)
    except ValueError as error:
        whose = "--license" if override else f"the license of {source.name}"
        raise CheckpointError(f"{whose}: {error}") from error
