// A precompiled header needs a source of its target (tests/CMakeLists.txt).
