"""From counted programs to what the user is told, and to the page."""

import json

import pytest
from test_hlo import PROGRAMS

from imgclf.config import default_config
from imgclf.planning import facts, topologies, verdict
from imgclf.planning.verdict import Sizes
from imgclf.reporting import plan as page

V5E, H100 = topologies.parse("v5e:2x2"), topologies.parse("h100:8")
MEMORY = {"arguments": 2_437_632, "outputs": 1_651_712, "aliased": 1_650_688, "temporaries": 0, "code": 2_758_144, "peak": 0}


def counted(topology, **changed):
    name = "v5e_2x2_step" if topology is V5E else "h100_8_step"
    compiled = {
        "name": "train",
        "text": (PROGRAMS / f"{name}.hlo").read_text(encoding="utf-8"),
        "batch": 32 * topology.chips,
        "memory": MEMORY,
        "donatable": 6,
        "hosts": [0] * topology.chips,
        "slices": [0] * topology.chips,
        "seconds": 10.0,
    }
    return facts.count(facts.Compiled(**compiled | changed), topology)


@pytest.fixture
def config():
    config = default_config()
    config.train.method, config.train.duration, config.loader.batch_size = "fit", "10 epochs", 128
    return config


def told(found, config, topology):
    return [finding.text for finding in verdict.findings([found], config, topology) if finding.kind == "fault"]


def test_a_step_is_bounded_by_its_slowest_part():
    found = counted(V5E)
    assert found["seconds"]["products"] == pytest.approx(
        (found["flops"]["bf16"] + 6 * found["flops"]["f32"]) / V5E.chip.bf16_flops  # a float32 product is six of bfloat16
    )
    assert found["seconds"]["memory"] == found["memory_bytes"] / V5E.chip.memory_rate
    assert found["bound_seconds"] == max(found["seconds"].values()) == found["seconds"][found["wall"]]
    assert found["estimated_seconds"] > found["bound_seconds"]
    assert counted(H100)["estimated_seconds"] is None
    assert counted(H100)["wall"] == "memory"


def test_hours_and_what_loaders_must_give_follow_from_the_bound(config):
    found = counted(V5E)
    summary = verdict.summary([found], config, V5E, Sizes(1000, 12_800, None, "as given"))
    assert summary["steps"] == 1000
    assert summary["hours"] == pytest.approx(1000 * found["bound_seconds"] / 3600)
    assert summary["images_per_second"] == pytest.approx(128 / found["bound_seconds"])
    assert summary["loader_images_per_second_per_host"] == summary["images_per_second"]  # there is one host


def test_a_sound_step_has_no_fault(config):
    found = counted(V5E)
    assert verdict.fits([found], V5E)
    assert told(found, config, V5E) == []
    assert verdict.suggestions([found], config, V5E) == []


def test_what_is_wrong_is_told(config):
    found = counted(V5E, donatable=7)
    assert "only 6 of the state's 7 arrays" in told(found, config, V5E)[0]
    found["convolutions"] |= {"f32": 3, "f32_names": ["jit(step)/conv"]}
    found["cpu_forms"] = ["winograd.py"]
    text = " ".join(told(found, config, V5E))
    assert "3 of 5 convolutions take float32 operands (jit(step)/conv)" in text
    assert "meant for CPUs (winograd.py)" in text
    config.model.precision = "f32"
    assert "convolutions" not in " ".join(told(found, config, V5E))
    config.loader.batch_size = 16
    assert told(found, config, V5E)[-1].startswith("4 images a chip are few")


def test_what_does_not_fit_gets_ways_to_make_it_fit(config):
    config.model.precision = "f32"
    found = counted(V5E, memory=MEMORY | {"temporaries": 40 * 2**30})
    assert not verdict.fits([found], V5E)
    assert "does not fit: it needs 40.00 GiB of the 15.75 GiB" in told(found, config, V5E)[0]
    fields = [one["fields"] for one in verdict.suggestions([found], config, V5E)]
    remat = {"train.remat": (("backbone/.+", "all"),)}
    assert fields == [{"loader.batch_size": 4 * 8}, {"model.precision": "bf16"}, remat]  # a quarter: the largest half of a half that fits
    refused = {"name": "train", "batch": 128, "needed": 40 * 2**30, "argument_bytes": 2**20}
    assert [one["fields"] for one in verdict.suggestions([refused], config, V5E)] == fields
    large = refused | {"argument_bytes": 15 * 2**30}  # no batch is small enough
    assert [one["fields"] for one in verdict.suggestions([large], config, V5E)] == [{"model.precision": "bf16"}, {"mesh.fsdp": 4}]
    assert not verdict.fits([refused], V5E)


def test_the_page_and_the_json_say_what_was_found(config, tmp_path):
    planned = []
    for topology in (V5E, H100):
        found = counted(topology)
        planned.append(
            {
                "topology": topology.name,
                "chips": topology.chips,
                "hosts": topology.hosts,
                "chip": {"title": topology.chip.title, "usable_bytes": topology.chip.usable_bytes, "source": topology.chip.source}
                | {
                    name: getattr(topology.chip, name)
                    for name in ("bf16_flops", "memory_bytes", "memory_rate", "link_rate", "chips_per_host")
                },
                "compiler": "one",
                "batch_size": 32 * topology.chips,
                "batch_per_chip": 32.0,
                "mesh": {"data": topology.chips, "fsdp": 1, "model": 1},
                "programs": [found],
                "fits": True,
                "summary": verdict.summary([found], config, topology, Sizes(1000, 12_800, None, "as given")),
                "findings": [{"kind": "fault", "text": "Told <b>here</b>."}],
                "suggestions": [{"fields": {}, "text": "Less.", "verified": {"fits": True, "bytes": 2**31}}],
            }
        )
    results = {
        "name": "one",
        "model": "resnet50",
        "precision": "bf16",
        "method": "fit",
        "image_size": [64, 64],
        "data": {"classes": 1000, "train": 12_800, "evaluated": None, "source": "as given"},
        "topologies": planned,
    }
    written = page.write(tmp_path / "new" / page.PAGE, page.identity(config), results)
    text = written.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "Told &lt;b&gt;here&lt;/b&gt;." in text
    assert "Compiled: fits, 2.00 GiB." in text
    assert json.loads(written.with_suffix(".json").read_text()) == results
    rows = {row.label: row for row in page.rows(results)}
    assert rows["step"].values[1].endswith("(memory bandwidth)")
    assert rows["step, by the compiler"].values[1] == "–"
    assert "features, a chip" not in rows
