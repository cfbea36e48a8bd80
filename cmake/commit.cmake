# Writes OUTPUT, the source of commit() in train/version.h, unless it is up to date, so that nothing is recompiled
# while the commit stays the same. The commit comes from git; in an archive made by `git archive`, from
# cmake/commit.txt; otherwise it is "unknown".
#   cmake -DSOURCE=DIR -DOUTPUT=FILE -P cmake/commit.cmake
set(commit "")
find_package(Git QUIET)
if(GIT_FOUND AND EXISTS ${SOURCE}/.git)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT commit)
  file(STRINGS ${SOURCE}/cmake/commit.txt archived LIMIT_COUNT 1)
  string(REGEX MATCH "^[0-9a-f]+" commit "${archived}")
  string(SUBSTRING "${commit}" 0 12 commit)
endif()
if(NOT commit)
  set(commit unknown)
endif()
set(text "namespace rodimus {\nconst char* commit() { return \"${commit}\"; }\n}\n")
set(before "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} before)
endif()
if(NOT text STREQUAL before)
  file(WRITE ${OUTPUT} "${text}")
endif()
