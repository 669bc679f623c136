"""Under which licence converted weights are: that of their source."""

from ..hub.licenses import check_license
from .errors import CheckpointError
from .reading import Source


def choose_license(source: Source, told: str | None) -> str:
    """The licence of a source's weights, as the Hub names it.

    Args:
        source: that may tell its licence.
        told: by the user, who then is believed.

    Raises:
        CheckpointError: if nobody tells it, or the Hub knows none of that name.
    """
    if told is None and source.license is None:
        raise CheckpointError(
            f"{source.name} does not say under which licence its weights are, and a card has to: find it where you got"
            " them, and pass --license, such as --license apache-2.0."
        )
    try:
        return check_license(told or source.license)
    except ValueError as error:
        whose = "--license" if told else f"the licence of {source.name}"
        raise CheckpointError(f"{whose}: {error}") from error
