import pytest
from xllmc.runtime.artifact import isa
from xllmc.runtime.artifact.errors import ArtifactError, OptionError
from xllmc.runtime.artifact.isa import REQUIRED_FLAGS, choose_library, glibc_version
from xllmc.runtime.artifact.schema import KernelLibrary

LIBRARIES = [KernelLibrary(isa=name, path=f"kernels/{name}.so", glibc="2.17") for name in REQUIRED_FLAGS]


@pytest.mark.parametrize("level", REQUIRED_FLAGS)
def test_the_best_level_of_the_cpu_is_chosen(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setattr(isa, "_cpu_flags", lambda: REQUIRED_FLAGS[level])
    assert choose_library(LIBRARIES).isa == level
    assert choose_library(LIBRARIES, "x86-64-v3").isa == "x86-64-v3"


def test_a_cpu_without_the_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "_cpu_flags", lambda: REQUIRED_FLAGS["x86-64-v3"])
    with pytest.raises(ArtifactError, match="kernels need x86-64-v4, and this CPU offers x86-64-v3"):
        choose_library(LIBRARIES[1:2])
    with pytest.raises(ArtifactError, match="kernels need x86-64-v4"):
        choose_library(LIBRARIES, "x86-64-v4")
    with pytest.raises(OptionError, match="not for sse2"):
        choose_library(LIBRARIES, "sse2")


def test_an_older_c_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "_cpu_flags", lambda: REQUIRED_FLAGS["x86-64-v3"])
    library = LIBRARIES[0].model_copy(update={"glibc": "99.1"})
    with pytest.raises(ArtifactError, match=r"glibc 99\.1 or later, got 2\."):
        choose_library([library])
    monkeypatch.setattr(isa, "glibc_version", lambda: None)
    with pytest.raises(ArtifactError, match="another C library"):
        choose_library(LIBRARIES)


def test_glibc_is_recognised() -> None:
    version = glibc_version()
    assert version is not None and version.startswith("2.")
