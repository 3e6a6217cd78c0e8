"""Hugging Face's hub: where it is, and whether it answers."""

import http.client
import os
import urllib.error
import urllib.request


def hub_address() -> str:
    """Where Hugging Face's hub is looked for. Raises ValueError where HF_ENDPOINT names no address
    that its clients could use."""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if not address.startswith(("https://", "http://")):
        raise ValueError(f"HF_ENDPOINT must begin with https:// or http://, not {address!r}")
    return address


def why_no_hub() -> str | None:
    """Why the hub does not answer within five seconds, or None where it does; its own clients would
    try for half a minute."""
    request = urllib.request.Request(hub_address(), method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except urllib.error.HTTPError:
        return None  # an answer, too
    except (OSError, http.client.HTTPException) as error:  # the latter of what is no web server
        return str(getattr(error, "reason", error))
    return None
