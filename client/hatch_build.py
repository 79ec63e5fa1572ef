"""Build hook of both distributions: makes the README a page for a package index, where relative links lead nowhere.

`make release` sets RELEASE_REPOSITORY to the repository's public address. Links and images of the README then point
there, at the tag of the version, and the address becomes the project's URL. Without the variable nothing is changed.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_ABSOLUTE = re.compile(r"[a-z]+:|#")


class ReadmeHook(MetadataHookInterface):
    """Sets `readme` and `urls`; `folder` in its configuration is where the README lies in the repository."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dynamic fields, unless the source archive has them already."""
        repository = os.environ.get("RELEASE_REPOSITORY", "").rstrip("/")
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        if repository:
            text = absolute_links(text, repository, f"v{metadata['version']}", self.config.get("folder", ""))
            metadata.setdefault(
                "urls",
                {
                    "Repository": repository,
                    "Changelog": f"{repository}/blob/v{metadata['version']}/CHANGELOG.md",
                },
            )
        metadata.setdefault("readme", {"content-type": "text/markdown", "text": text})


def absolute_links(text: str, repository: str, tag: str, folder: str) -> str:
    """Markdown with its relative links and images made absolute.

    Args:
        text: the README.
        repository: the repository's address, in whose web pages `blob/TAG/PATH` shows a file and `raw/TAG/PATH` gives
            its content (GitHub, GitLab, Gitea).
        tag: the Git tag of the version.
        folder: the README's folder in the repository; empty for the root.
    """

    def replace(found: re.Match[str]) -> str:
        target = found["target"]
        if _ABSOLUTE.match(target):
            return found[0]
        path, mark, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(folder, path))
        kind = "raw" if found["image"] else "blob"
        return f"{found['image']}[{found['text']}]({repository}/{kind}/{tag}/{path}{mark}{anchor})"

    return _LINK.sub(replace, text)
