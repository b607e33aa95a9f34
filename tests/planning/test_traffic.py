"""What passes to high-bandwidth memory: only what lies there, at its padded size, as often as it runs."""

from test_hlo import read

from imgclf.planning import hlo, traffic

LOOP = """HloModule loop
%half (p: f32[256,128]) -> f32[8,128] {
  %p = f32[256,128]{1,0:T(8,128)} parameter(0)
  ROOT %part = f32[8,128]{1,0:T(8,128)} slice(%p), slice={[0:8], [0:128]}
}
%replaced (q: f32[256,128], u: f32[8,128], i: s32[]) -> f32[256,128] {
  %q = f32[256,128]{1,0:T(8,128)} parameter(0)
  %u = f32[8,128]{1,0:T(8,128)S(1)} parameter(1)
  %i = s32[]{:T(128)S(6)} parameter(2)
  ROOT %new = f32[256,128]{1,0:T(8,128)} dynamic-update-slice(%q, %u, %i, %i)
}
%body (t: (f32[256,128])) -> (f32[256,128]) {
  %t = (f32[256,128]{1,0:T(8,128)}) parameter(0)
  %x = f32[256,128]{1,0:T(8,128)} get-tuple-element(%t), index=0
  %y = f32[8,128]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%half, backend_config={"estimated_cycles":"10"}
  %zero = s32[]{:T(128)S(6)} constant(0)
  %z = f32[256,128]{1,0:T(8,128)} fusion(%x, %y, %zero), kind=kLoop, calls=%replaced
  ROOT %out = (f32[256,128]{1,0:T(8,128)}) tuple(%z)
}
%more (t.1: (f32[256,128])) -> pred[] {
  %t.1 = (f32[256,128]{1,0:T(8,128)}) parameter(0)
  ROOT %yes = pred[]{:T(512)} constant(true)
}
ENTRY %main (a: f32[256,128]) -> f32[256,128] {
  %a = f32[256,128]{1,0:T(8,128)} parameter(0)
  %start = (f32[256,128]{1,0:T(8,128)S(1)}, f32[256,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %done = f32[256,128]{1,0:T(8,128)S(1)} copy-done(%start)
  %b = f32[256,128]{1,0:T(8,128)} negate(%done)
  %in = (f32[256,128]{1,0:T(8,128)}) tuple(%b)
  %w = (f32[256,128]{1,0:T(8,128)}) while(%in), condition=%more, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %r = f32[256,128]{1,0:T(8,128)} get-tuple-element(%w), index=0
}
"""
WHOLE, PART = 256 * 128 * 4, 8 * 128 * 4


def test_loops_parts_and_what_stays_on_the_chip():
    module = hlo.parse(LOOP)
    times = traffic.scheduled(module)
    assert times == {"main": 1, "body": 5, "more": 5}
    # copied to the chip: read; negated: written; in each round a part is read, and one written in place
    assert traffic.memory_bytes(module, times) == WHOLE + WHOLE + 5 * (PART + PART)
    assert traffic.estimated_cycles(module, times) == 50
    assert traffic.all_parts(module)["half"] == 5


def test_a_tpus_step_keeps_its_maps_on_the_chip_and_a_gpus_does_not():
    tpu, gpu = read("v5e_2x2_step"), read("h100_8_step")
    at_tpu, at_gpu = (traffic.memory_bytes(module, traffic.scheduled(module)) for module in (tpu, gpu))
    images, state = 32 * 3 * 64 * 128, 2 * 4 * (3 * 3 * 3 * 64 + 3 * 3 * 64 * 128 + 128 * 1000)
    assert images + 2 * state < at_tpu < 2 * (images + 2 * state)  # the state is read and written, little else passes
    maps = 32 * 64 * 64 * 64 * 2
    assert at_gpu > 10 * maps
