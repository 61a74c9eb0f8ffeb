"""What a matrix product or an embedding does to its values before it stores them, and what it cannot."""

from xllmc.passes.fuse_epilogue import FuseEpilogue

from tests.programs import after, program

INPUTS = "%x: bf16[T, 16], %r: bf16[T, 24], %s: bf16[T, 1], %ids: i32[T], %one: bf16[1, 16]"
WEIGHTS = ("w [24, 16]", "v [24]", "table [64, 16]")


def fused(body: str, result: str = "%y") -> tuple[list[str], tuple[str, ...]]:
    names = ", ".join(f"r{i}" for i in range(result.count("%")))
    made = program(f"func forward({INPUTS}) -> ({names}) {{{body}\n return {result} }}", WEIGHTS, "bf16")
    lines, report = after(FuseEpilogue(), made)
    return lines, report.near_misses


def test_a_scaled_product_added_to_a_residual():
    body = """
      %l: bf16[T, 24] = linear(%x, @w, none)
      %m: bf16[T, 24] = mul(%l, 0.22)
      %y: bf16[T, 24] = add(%r, %m)"""
    assert fused(body)[0] == [
        "%linear: bf16[T, 24] = linear(%x, @w, none, %r, epilogue=(%0: f32[T, 24], %1: bf16[T, 24]) { "
        '%2: f32[T, 24] = mul(%0, 0.22); %3: f32[T, 24] = cast(%1, dtype="f32"); %4: f32[T, 24] = add(%3, %2); '
        '%5: bf16[T, 24] = cast(%4, dtype="bf16"); return %5 })',
        "return %linear",
    ]


def test_a_soft_cap_keeps_the_wide_logits():
    body = """
      %l: f32[T, 24] = linear(%x, @w, none, out_dtype="f32")
      %d: f32[T, 24] = div(%l, 30.0)
      %t: f32[T, 24] = tanh(%d)
      %y: f32[T, 24] = mul(%t, 30.0)"""
    assert fused(body)[0][0].startswith("%linear: f32[T, 24] = linear(%x, @w, none, epilogue=(%0: f32[T, 24]) {")


def test_a_scaled_embedding():
    lines, _ = fused("""
      %e: bf16[T, 16] = embedding(@table, %ids)
      %y: bf16[T, 16] = mul(%e, 8.0)""")
    assert lines[0].startswith("%embedding: bf16[T, 16] = embedding(@table, %ids, epilogue=(%0: f32[T, 16]) {")


def test_an_activation_written_out_reads_the_product_twice():
    lines, _ = fused("""
      %l: bf16[T, 24] = linear(%x, @w, @v)
      %g: bf16[T, 24] = sigmoid(%l)
      %y: bf16[T, 24] = mul(%l, %g)""")
    assert "sigmoid" in lines[0] and len(lines) == 2


def test_rows_for_all_and_numbers_for_each_row():
    lines, _ = fused("""
      %l: bf16[T, 24] = linear(%x, @w, none, activation="silu")
      %a: bf16[T, 24] = mul(%l, @v)
      %y: bf16[T, 24] = mul(%a, %s)""")
    assert lines[0].startswith('%linear: bf16[T, 24] = linear(%x, @w, none, @v, %s, activation="silu", epilogue=')


def test_two_products_are_one_epilogue_of_the_first():
    lines, _ = fused("""
      %a: bf16[T, 24] = linear(%x, @w, @v, activation="silu")
      %b: bf16[T, 24] = linear(%x, @w, @v)
      %y: bf16[T, 24] = mul(%a, %b)""")
    assert [line.split(" = ")[1].split(", epilogue")[0] for line in lines[:2]] == [
        "linear(%x, @w, @v)",
        'linear(%x, @w, @v, %b, activation="silu"',
    ]


def test_a_value_that_another_kernel_reads_is_stored_first():
    body = """
      %l: bf16[T, 24] = linear(%x, @w, none)
      %a: bf16[T, 24] = mul(%l, 2.0)
      %m: bf16[T, 1] = amax(%a)
      %y: bf16[T, 24] = sub(%a, %m)"""
    lines, _ = fused(body)
    assert [line.split(" = ")[1].split("(")[0] for line in lines[:-1]] == ["linear", "amax", "sub"]
    lines, misses = fused(body, "%y, %l")
    assert lines[0].endswith("linear(%x, @w, none)") and "read elsewhere too" in misses[0]


def test_one_row_added_to_many_is_a_near_miss():
    _, misses = fused("""
      %l: bf16[1, 24] = linear(%one, @w, none)
      %y: bf16[T, 24] = add(%r, %l)""")
    assert "not the shape of its product" in misses[0]
