"""Containers on this machine, where there is an engine for them."""

from __future__ import annotations

import docker
import docker.errors
import requests


def lacking(image: str) -> str:
    """What keeps this machine from running a container of an image, and what to do; empty when nothing does.

    Args:
        image: name and tag.
    """
    try:
        docker.from_env(timeout=5).images.get(image)
    except docker.errors.ImageNotFound:
        return f"Docker holds no image {image} yet; `make image` builds it"
    except (docker.errors.DockerException, requests.RequestException):
        return "no Docker engine answers here; where one does, `make image` builds the image"
    return ""
