"""The documentation agrees with the code."""

import re
import runpy
from pathlib import Path

from service.errors import ServiceError, SetupError
from service.settings.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent


def test_configuration_page_is_generated_from_the_settings() -> None:
    module = runpy.run_path(str(ROOT / "docs" / "configuration.py"))
    assert module["PAGE"].read_text(encoding="utf-8") == module["render"](), "run python docs/configuration.py"


def test_links_between_pages_are_valid() -> None:
    pages = [page for pattern in ("*.md", "docs/*.md", "client/*.md", "service/**/*.md") for page in ROOT.glob(pattern)]
    assert len(pages) > 5
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert not broken


def test_files_named_in_the_architecture_page_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`(service/[\w/]+\.py)`", text)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_tests_and_limits_named_in_the_security_page_exist() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 30
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []
    limits = {name for name in SETTINGS if name.startswith(("max_", "min_", "rate_", "caller_", "api_", "public_"))}
    limits |= {
        "timeout",
        "segment_timeout",
        "body_timeout",
        "body_idle_timeout",
        "header_timeout",
        "trusted_proxies",
        "cors_origins",
    }
    assert limits <= set(re.findall(r"`([a-z_]+)`", text))


def test_make_targets_named_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for readme in ("README.md", "README.zh-CN.md"):
        targets = re.findall(r"^make (\w+)", (ROOT / readme).read_text(encoding="utf-8"), re.MULTILINE)
        assert {"run", "test"} <= set(targets)
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_error_code_of_the_api_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([a-z_]+)`", page.partition("## Errors")[2]))
    leaves, pending = set(), [ServiceError]
    while pending:
        error = pending.pop()
        if not issubclass(error, SetupError):
            pending += error.__subclasses__()
            leaves |= {error.code} if not error.__subclasses__() else set()
    assert leaves <= documented
