#!/usr/bin/env python3
"""Compares the PTX that nvcc makes of each wrapper with the instruction it stands for.

    ptx_test.py NVCC [-I...]    run by ctest; exit code 1 and one line for each difference

wrappers.cu has one kernel for each wrapper that only loads the operands, calls it and stores the
result. So each register of the asm can be named by the memory that it comes from or goes to:
p1+4 is the word 4 bytes into what parameter 1 points to, &p1 the pointer itself, shared an offset
into shared memory. The expected lines below are written from the PTX ISA 9.0, chapters "mma.sync",
"ldmatrix", "cp.async", "cvt", "ex2", "ld" and "bar".

Also holds the sources in kernels/cuda to the rules that the emulator relies on.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def words(parameter, count):
    return "{" + ",".join(f"p{parameter}+{4 * i}" for i in range(count)) + "}"


D, A, B = words(0, 4), words(1, 4), words(2, 2)
COMMIT, WAIT = "cp.async.commit_group;", "cp.async.wait_group 0;"
EXPECTED = {
    "mma_bf16": [f"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {D}, {A}, {B}, {D};"],
    "mma_tf32": [f"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {D}, {A}, {B}, {D};"],
    "ldsm_x4": [f"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {words(0, 4)}, [shared];"],
    "ldsm_x4_t": [f"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {words(0, 4)}, [shared];"],
    "ldsm_x2": [f"ldmatrix.sync.aligned.m8n8.x2.shared.b16 {words(0, 2)}, [shared];"],
    "ldsm_x2_t": [f"ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {words(0, 2)}, [shared];"],
    "cp_async16": ["cp.async.cg.shared.global [shared], [&p1], 16, p2+0;", COMMIT, WAIT],
    "cp_async8": ["cp.async.ca.shared.global [shared], [&p1], 8, p2+0;", COMMIT, WAIT],
    "cp_async4": ["cp.async.ca.shared.global [shared], [&p1], 4, p2+0;", COMMIT, WAIT],
    "cp_groups": ["cp.async.ca.shared.global [shared], [&p1], 4, 4;", COMMIT] * 2 +
                 ["cp.async.wait_group 1;", WAIT],
    "ldg128_stg128": [f"ld.global.v4.u32 {words(1, 4)}, [&p1];",
                      f"st.global.v4.u32 [&p0], {words(1, 4)};"],
    "ldg64_stg64": [f"ld.global.v2.u32 {words(1, 2)}, [&p1];",
                    f"st.global.v2.u32 [&p0], {words(1, 2)};"],
    "ldg32_stg32": ["ld.global.u32 p1+0, [&p1];", "st.global.u32 [&p0], p1+0;"],
    "lds128_sts128": [f"st.shared.v4.u32 [shared], {words(1, 4)};",
                      f"ld.shared.v4.u32 {words(0, 4)}, [shared];"],
    "lds64_sts64": [f"st.shared.v2.u32 [shared], {words(1, 2)};",
                    f"ld.shared.v2.u32 {words(0, 2)}, [shared];"],
    "lds32_sts32": ["st.shared.u32 [shared], p1+0;", "ld.shared.u32 p0+0, [shared];"],
    "ex2": ["ex2.approx.ftz.f32 p0+0, p1+0;"],
    "lg2": ["lg2.approx.ftz.f32 p0+0, p1+0;"],
    "rcp": ["rcp.approx.ftz.f32 p0+0, p1+0;"],
    "to_tf32": ["cvt.rna.tf32.f32 p0+0, p1+0;"],
    "bar_sync": ["bar.sync 1, 128;", "bar.sync 2, 128;"],  # order and number: see compare()
}
PLAIN = {"ldg128_stg128", "ldg64_stg64", "ldg32_stg32"}  # wrappers without asm


def kernels(ptx):
    """{name without "probe_": its lines} of all probes."""
    found = {}
    for match in re.finditer(r"\.entry (\w+)\(.*?\n\{(.*?)\n\}", ptx, re.S):
        name = re.search(r"\d{1,2}(probe_\w+?)E(?=P)", match[1])
        if name:
            lines = [line.strip() for line in match[2].splitlines()]
            found[name[1].removeprefix("probe_")] = lines
    return found


class Names:
    """What the registers of one kernel hold, in the terms of the expected lines."""

    def __init__(self, lines):
        self.of = {}
        for line in lines:
            self.read(line)
        for line in lines:
            self.read_store(line)

    def read(self, line):
        if match := re.match(r"ld\.param\.\w+\s+(%\w+), \[\w+_param_(\d+)\]", line):
            self.of[match[1]] = f"&p{match[2]}"
        elif match := re.match(r"(?:cvta\.to\.global|mov)\.\w+\s+(%\w+), (%\w+);", line):
            if match[2] in self.of:
                self.of[match[1]] = self.of[match[2]]
        elif match := re.match(r"add\.s64\s+(%\w+), (%\w+), (%?\w+);", line):
            for register in (match[2], match[3]):
                if self.of.get(register, "").startswith("&"):
                    self.of[match[1]] = self.of[register]
        elif match := re.match(r"ld\.global(?:\.nc)?(?:\.v\d)?\.\w+\s+(.*), \[(%\w+)(?:\+(\d+))?\]",
                               line):
            self.elements(match[1], match[2], match[3])
        elif match := re.match(r"cvt\.u32\.u64\s+(%\w+), ", line):
            self.of[match[1]] = "shared"

    def read_store(self, line):
        """A result is named by where it is stored."""
        if match := re.match(r"st\.global(?:\.v\d)?\.\w+\s+\[(%\w+)(?:\+(\d+))?\], (.*);", line):
            self.elements(match[3], match[1], match[2], overwrite=False)

    def elements(self, registers, pointer, offset, overwrite=True):
        base = self.of.get(pointer, "?").lstrip("&")
        for i, register in enumerate(re.findall(r"%\w+", registers)):
            if overwrite or register not in self.of:
                self.of[register] = f"{base}+{int(offset or 0) + 4 * i}"

    def rewrite(self, line):
        line = re.sub(r"\[(%r\d+)\]", "[shared]", line)
        line = re.sub(r"\[(%rd\d+)\]", lambda m: f"[{self.of.get(m[1], '?')}]", line)
        line = re.sub(r"%\w+", lambda m: self.of.get(m[0], m[0]), line)
        line = re.sub(r"\{[^}]*\}", lambda m: m[0].replace(" ", ""), line)
        return re.sub(r"\s+", " ", line)


def asm_lines(lines):
    inside, found = False, []
    for line in lines:
        if line.startswith("// begin inline asm"):
            inside = True
        elif line.startswith("// end inline asm"):
            inside = False
        elif inside and line:
            found.append(line)
    return found


def constants(lines):
    """Registers that hold one known number."""
    return {match[1]: match[2] for line in lines
            if (match := re.match(r"mov\.\w+\s+(%\w+), (-?\d+);", line))}


def compare(name, lines):
    names = Names(lines)
    names.of.update(constants(lines))
    if name in PLAIN:
        chosen = [line for line in lines if re.match(r"(ld|st)\.global", line)]
    else:
        chosen = asm_lines(lines)
    got = [names.rewrite(line) for line in chosen]
    want = EXPECTED[name]
    if name == "bar_sync":  # in two loops and branches: which instructions, not how often
        got, want = sorted(set(got)), sorted(want)
    if got != want:
        yield f"{name}: nvcc emits {got}, expected {want}"


def wrappers_with_asm(text):
    """Names of the wrappers in the device half of ptx.cuh whose body is asm."""
    device_half = text.split("#else")[0]
    functions = re.split(r"__device__ __forceinline__", device_half)[1:]
    return {re.match(r"\s*[\w:]+\s+(\w+)\(", body)[1] for body in functions if "asm" in body}


def swapped(lines):
    """The lines with two registers of a list exchanged; None where no asm has a list."""
    for i, line in enumerate(lines):
        if lines[i - 1].startswith("// begin inline asm") and "{" in line:
            first, second = re.findall(r"%\w+", line[line.index("{"):])[:2]
            line = line.replace(first + ",", "@").replace(second, first).replace("@", second + ",")
            return [*lines[:i], line, *lines[i + 1:]]
    return None


def check_self(probes):
    """A comparison that cannot fail would prove nothing."""
    for name, lines in sorted(probes.items()):
        wrong = swapped(lines)
        if wrong and name not in PLAIN and not list(compare(name, wrong)):
            yield f"{name}: two exchanged registers are not noticed"


RULES = [  # (pattern, what to do instead); dev.cuh and ptx.cuh are the exceptions they name
    (r"<<<", "launch through dev::launch"),
    (r"\basm\b", "add a wrapper to ptx.cuh"),
    (r"\b__shared__\b", "use SHARED_ARRAY or DYN_SHARED"),
    (r"cooperative_groups|\bcudaLaunchDevice|\btex\w*<", "not emulated"),
    (r"\b__nanosleep\b|\bvolatile\b", "blocks of a launch must not wait for each other"),
]


def check_rules():
    for path in sorted((ROOT / "kernels/cuda").rglob("*.cu*")):
        if path.name in ("dev.cuh", "ptx.cuh"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.split("//")[0]
            for pattern, advice in RULES:
                if re.search(pattern, code):
                    yield f"{path.relative_to(ROOT)}:{number}: {code.strip()}: {advice}"


def check_coverage(probes):
    source = (ROOT / "tests/simt/wrappers.cu").read_text()
    for name in sorted(wrappers_with_asm((ROOT / "kernels/cuda/ptx.cuh").read_text())):
        if not re.search(rf"\b{name}\b", source):
            yield f"{name}: no probe in wrappers.cu calls it"
    for name in sorted(set(EXPECTED) - set(probes)):
        yield f"{name}: no kernel probe_{name} in the PTX"
    for name in sorted(set(probes) - set(EXPECTED)):
        yield f"{name}: a probe without an expected instruction"


def main():
    nvcc, *flags = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "wrappers.ptx"
        subprocess.run([nvcc, "-std=c++20", f"-I{ROOT}", *flags, "-arch=compute_80", "-ptx", "-o",
                        output, ROOT / "tests/simt/wrappers.cu"], check=True)
        probes = kernels(output.read_text())
    problems = [*check_coverage(probes), *check_rules(), *check_self(probes)]
    for name in sorted(set(probes) & set(EXPECTED)):
        problems += compare(name, probes[name])
    print("\n".join(problems) or f"{len(probes)} probes emit what they should")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
