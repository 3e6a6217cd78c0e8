"""Hugging Face's hub: where it is, and whether it answers."""

import os
import urllib.error
import urllib.request


def hub_address() -> str:
    """Where Hugging Face's hub is looked for."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def why_no_hub() -> str | None:
    """Why the hub does not answer within five seconds, or None where it does; its own clients would
    try for half a minute."""
    request = urllib.request.Request(hub_address(), method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except urllib.error.HTTPError:
        return None  # an answer, too
    except OSError as error:
        return str(getattr(error, "reason", error))
    return None
