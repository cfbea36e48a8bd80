// A precompiled header needs a source file in its target (tests/CMakeLists.txt).
