"""Whether the Hugging Face hub can be reached.

Without a network the hub's library asks again for a minute. Here the hub is asked once, and what
needs it can say so in time.
"""

import ssl
import threading
import time
import urllib.error
import urllib.request
from functools import lru_cache

from huggingface_hub import constants

PATIENCE = 5.0
"""Seconds within which the hub must answer."""

_HOLDS_FOR = 60.0
"""Seconds for which an answer holds."""

_GATEWAYS = (502, 503, 504)
"""Statuses of a proxy or a gateway that does not reach the hub."""


def unreachable() -> str | None:
    """Return why the hub does not answer; None if it does. Proxies are taken into account.

    Takes at most `PATIENCE` seconds and one; nothing where it was asked within the last minute.
    """
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return _reason(constants.ENDPOINT, time.monotonic() // _HOLDS_FOR)


@lru_cache(maxsize=1)
def _reason(endpoint: str, minute: float) -> str | None:
    found: list[str | None] = []
    # A name look-up has no time limit of its own.
    asking = threading.Thread(target=lambda: found.append(_asked(endpoint)), daemon=True)
    asking.start()
    asking.join(PATIENCE + 1)
    return found[0] if found else f"no answer within {PATIENCE:.0f} seconds"


def _asked(endpoint: str) -> str | None:
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return None
    except urllib.error.HTTPError as error:
        return f"a gateway answers {error.code}" if error.code in _GATEWAYS else None
    except urllib.error.URLError as error:
        # Whoever has a certificate that is not accepted here has answered.
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            return None
        reason = getattr(error.reason, "strerror", None) or error.reason
        return " ".join(str(reason).split())
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())
