"""Which CPU a program runs on, by what Linux says of it."""

from imgclf.runtime import processor


def test_what_changes_results_is_noted(tmp_path):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9000\nflags\t\t: fpu sse4_2 avx512f vmx avx2\nbugs\t\t:\n\n"
        "processor\t: 1\nmodel name\t: AMD EPYC 9000\nflags\t\t: fpu sse4_2 avx512f hypervisor avx2\n"
    )
    assert processor.describe(tmp_path / "cpuinfo") == {"cpu": "AMD EPYC 9000", "cpu_features": ["avx2", "avx512f", "sse4_2"]}
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd sve atomics\nCPU part\t: 0xd40\n")
    assert processor.describe(tmp_path / "arm")["cpu_features"] == ["asimd", "sve"]


def test_elsewhere_the_name_is_all_that_is_known(tmp_path):
    found = processor.describe(tmp_path / "nothing")
    assert found["cpu"]
    assert found["cpu_features"] == []
