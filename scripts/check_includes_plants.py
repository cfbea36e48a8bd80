"""The trees on which `check_includes.py --self-test` tries its rules: one obeys them all, each other one breaks one."""
import tempfile
from pathlib import Path

HEADER = "#pragma once\nnamespace rodimus::cuda {\n"
# A tree that obeys every rule; each plant below breaks one of them.
CLEAN = {
    "CMakeLists.txt": "add_executable(rodimus train/main.cpp train/commands/command.cpp)\n",
    "base/error.h": "#pragma once\n",
    "kernels/exec.h": '#pragma once\n#include "base/error.h"\n',
    "kernels/norm.h": '#pragma once\n#include "kernels/exec.h"\n',
    "kernels/reference/norm.h": "#pragma once\n",
    "kernels/cpu/norm.cpp": '#include "kernels/norm.h"\n#include <immintrin.h>\n',
    "kernels/cpu/tiles.h": "#pragma once\nnamespace rodimus::cpu::norm {\nnamespace detail {\n",
    "kernels/cuda/tiles.cuh": "#pragma once\nnamespace rodimus::cuda {\n",
    "kernels/cuda/dims.cuh": HEADER + "struct Dims {\n  int rows = 0;\n};\nenum class Kind { a, b };\n"
                             "inline constexpr int64_t kTile = 64;\nusing Row = float;\n"
                             "inline int padded(int x, const Dims& dims) { return x; }\n",
    "base/checksum.h": "#pragma once\n",
    "base/checksum.cpp": '#include "base/checksum.h"\n#include <xxhash.h>\n',
    "kernels/cuda/norm.cu": "",
    "kernels/CMakeLists.txt": "add_library(kernels cpu/norm.cpp)\nset(kernels cuda/norm.cu)\n",
    "base/CMakeLists.txt": "add_library(base checksum.cpp)\n",
    "autograd/norm.cpp": "",
    "autograd/CMakeLists.txt": "add_library(autograd norm.cpp)\n",
    "autograd/norm.h": '#pragma once\n#include "kernels/norm.h"\n',
    "layers/linear.h": '#pragma once\n#include "autograd/norm.h"\n#include "kernels/exec.h"\n',
    "layers/linear.cpp": "",
    "layers/deep/norm.cpp": "",
    "layers/CMakeLists.txt": "file(GLOB_RECURSE sources CONFIGURE_DEPENDS *.cpp)\nadd_library(layers ${sources})\n",
    "data/shard.h": '#pragma once\n#include "base/error.h"\n#include "base/checksum.h"\n',
    "dist/mpi.cpp": '#include <mpi.h>\n#include "autograd/norm.h"\n',
    "dist/CMakeLists.txt": "add_library(dist mpi.cpp)\n",
    "checkpoints/save.h": '#pragma once\n#include "layers/linear.h"\n#include <hdf5.h>\n',
    "train/commands/command_line.h": "#pragma once\n",
    "train/report/plan.h": "#pragma once\n",
    "train/commands/command.cpp": "#include <CLI/CLI.hpp>\n",
    "train/main.cpp": '#include <vector>\n#include "data/shard.h"\n',
    "tests/kernels/norm_test.cpp": '#include <gtest/gtest.h>\n#include "kernels/reference/norm.h"\n',
    "tests/support/mpi_main.cpp": "",
    "tests/data/shard_test.cpp": "#include <sentencepiece_processor.h>\n",
    "tests/train/command_line_test.cpp": "#include <CLI/CLI.hpp>\n",
    "tests/fuzz/shard_fuzz.cpp": "",
    "tests/e2e/resume_test.py": "",
    "tests/e2e/support.py": "",
    "tests/CMakeLists.txt": "rodimus_test(kernels/norm_test kernels)\n"
                            "foreach(name data/shard train/command_line)\n  rodimus_test(${name}_test)\n"
                            "endforeach()\n"
                            "add_executable(x ${CMAKE_SOURCE_DIR}/tests/support/mpi_main.cpp)\n",
    "tests/e2e/CMakeLists.txt": "foreach(name resume)\n  add_test(COMMAND python3 "
                                "${CMAKE_CURRENT_SOURCE_DIR}/${name}_test.py)\nendforeach()\n",
    "tests/fuzz/CMakeLists.txt": "rodimus_fuzz(shard_fuzz SOURCES data/shard.cpp)\n",
    "bench/norm_bench.cpp": "#include <benchmark/benchmark.h>\n",
    "bench/CMakeLists.txt": "rodimus_bench(norm_bench kernels)\n",
}
PLANTS = [  # (what the report must say after the file's name, file, its content)
    ("arrows", "kernels/norm.h", '#pragma once\n#include "autograd/norm.h"\n'),
    ("arrows", "autograd/norm.h", '#pragma once\n#include "layers/linear.h"\n'),
    ("arrows", "layers/linear.h", '#pragma once\n#include "kernels/norm.h"\n'),
    ("arrows", "layers/linear.h", '#pragma once\n#include "data/shard.h"\n'),
    ("arrows", "data/shard.h", '#pragma once\n#include "kernels/exec.h"\n'),
    ("arrows", "dist/mpi.cpp", ' # include "layers/linear.h"\n'),
    ("arrows", "checkpoints/save.h", '#pragma once\n#include "data/shard.h"\n'),
    ("arrows", "kernels/cpu/norm.cpp", '#include "kernels/reference/norm.h"\n'),
    ("arrows", "train/main.cpp", '#include "tests/kernels/norm_test.cpp"\n'),
    ("path", "autograd/norm.h", '#pragma once\n#include "norm.h"\n'),
    ("path", "layers/linear.h", '#pragma once\n#include "../data/shard.h"\n'),
    ("path", "layers/linear.h", "#pragma once\n#include <data/shard.h>\n"),
    ("vendor", "train/main.cpp", "#include <CLI/CLI.hpp>\n"),
    ("vendor", "train/main.cpp", "#include <mpi.h>\n"),
    ("vendor", "train/main.cpp", '#include "mpi.h"\n'),
    ("vendor", "data/shard.h", "#pragma once\n#include <hdf5.h>\n"),
    ("vendor", "autograd/norm.h", "#pragma once\n#include <oneapi/dnnl/dnnl.hpp>\n"),
    ("vendor", "kernels/norm.h", "#pragma once\n#include <cuda_runtime.h>\n"),
    ("vendor", "kernels/norm.h", "#pragma once\n#include <cublasLt.h>\n"),
    ("vendor", "dist/mpi.cpp", "#include <nccl.h>\n"),
    ("vendor", "train/main.cpp", "#include <sentencepiece_processor.h>\n"),
    ("vendor", "data/shard.h", "#pragma once\n#include <xxhash.h>\n"),
    ("vendor", "train/main.cpp", "#include <archive.h>\n"),
    ("vendor", "tests/train/command_line_test.cpp", "#include <sentencepiece_processor.h>\n"),
    ("vendor", "tests/data/shard_test.cpp", "#include <CLI/CLI.hpp>\n"),
    ("vendor", "layers/linear.h", "#pragma once\n#include <immintrin.h>\n"),
    ("vendor", "data/shard.h", "#pragma once\n#include <toml++/toml.h>\n"),
    ("vendor", "data/shard.h", "#pragma once\n#include <CLI/CLI.hpp>\n"),
    ("vendor", "train/main.cpp", "#include <gtest/gtest.h>\n"),
    ("listed", "train/forgotten.cpp", ""),
    ("listed", "tests/kernels/other_test.cpp", ""),
    ("listed", "tests/e2e/eval_test.py", ""),
    ("listed", "tests/fuzz/other_fuzz.cpp", ""),
    ("listed", "bench/other_bench.cpp", ""),
    ("listed", "kernels/CMakeLists.txt", "add_library(kernels)  # cpu/norm.cpp\n"),
    ("listed", "layers/CMakeLists.txt", "file(GLOB sources *.cpp)\nadd_library(layers ${sources})\n"),
    ("op", "kernels/memory_bound.h", "#pragma once\n"),
    ("op: kernels/cpu/rotary is missing", "kernels/rotary.h", "#pragma once\n"),
    ("op: kernels/cuda/rotary is missing", "kernels/rotary.h", "#pragma once\n"),
    ("rooms", "train/config/keys.h", '#pragma once\n#include "train/commands/command_line.h"\n'),
    ("rooms", "train/main.cpp", '#include "train/report/plan.h"\n'),
    ("rooms", "kernels/norm.h", '#pragma once\n#include "kernels/cpu/tiles.h"\n'),
    ("rooms", "kernels/cpu/norm.cpp", '#include "kernels/cuda/tiles.cuh"\n'),
    ("arrows", "base/error.h", '#pragma once\n#include "kernels/exec.h"\n'),
    ("op: kernels/reference/rotary.h is missing", "kernels/rotary.h", "#pragma once\n"),
    ("op: autograd/rotary.cpp is missing", "kernels/rotary.h", "#pragma once\n"),
    ("op: tests/kernels/rotary_test.cpp is missing", "kernels/rotary.h", "#pragma once\n"),
    ("test name", "tests/kernels/helper.cpp", ""),
    ("test name", "tests/fuzz/parser_test.cpp", ""),
    ("guard", "base/error.h", "namespace rodimus {}\n"),
    ("namespace", "kernels/cpu/tiles.h", "#pragma once\nnamespace rodimus::norm {\n"),
    ("namespace", "kernels/cpu/tiles.h", "#pragma once\nnamespace rodimus::cuda {\n"),
    ("namespace", "kernels/cuda/tiles.cuh", "#pragma once\nnamespace rodimus::cuda_norm {\n"),
    ("namespace", "kernels/cuda/tiles.cuh", "#pragma once\nnamespace rodimus {\n"),
    ("one name", "kernels/cuda/tiles.cuh", HEADER + "struct Dims {\n  int keys;\n};\n"),
    ("one name", "kernels/cuda/tiles.cuh", HEADER + "template <class T>\nstruct Dims : Base<T> {\n"),
    ("one name", "kernels/cuda/tiles.cuh", HEADER + "inline constexpr int64_t kTile = 32;\n"),
    ("one name", "kernels/cuda/tiles.cuh", HEADER + "int padded(int length,\n           const Dims& d) {\n"),
    ("one name", "kernels/cuda/tiles.cuh", HEADER + "inline int padded(int x, const Dims& d = {}) {\n"),
    ("one name", "kernels/cuda/tiles.cuh", HEADER + "enum class Kind : int { a };\n"),
    ("one name", "kernels/cuda/tiles.cuh", HEADER + "using Row = double;\n"),
    ("one name", "kernels/cpu/norm.cpp", HEADER + "class Dims final {\n};\n"),
    (None, "kernels/cuda/tiles.cuh", HEADER + "namespace {\nstruct Dims {};\n}  // namespace\n"),
    (None, "kernels/cuda/tiles.cuh", HEADER + "struct Dims;\nint padded(int, long);\nint padded(long x) {\n"),
    (None, "kernels/cuda/tiles.cuh", HEADER + "}  // namespace rodimus::cuda\nnamespace rodimus::cuda::norm {\n"
                                     "struct Dims {\n"),
    ("length", "train/main.cpp", "\n" * 401),
    ("length", "scripts/long.py", "\n" * 401),
]


def self_test(check):
    """Whether `check`, given a folder, finds the violation of each plant and nothing in the clean tree."""
    failures = 0
    for rule, name, content in [(None, "scripts/none.py", ""), *PLANTS]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for path, text in {**CLEAN, name: content}.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
            problems = check(root)
        good = any(f": {rule}" in problem for problem in problems) if rule else not problems
        if not good:
            failures += 1
            print(f"self-test: wanted {rule or 'no'} violation in {name}: {content[:70]!r}, "
                  f"got {problems}")
    print(f"check_includes: self-test: {len(PLANTS) + 1 - failures} of {len(PLANTS) + 1} passed")
    return failures == 0
