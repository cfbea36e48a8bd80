# Writes OUTPUT, the source of model_code() in interop/model_code.h, with the texts of FOLDER/*.py.
#   cmake -DFOLDER=DIR -DOUTPUT=FILE -P cmake/embed.cmake
file(GLOB files ${FOLDER}/*.py)
set(entries "")
foreach(file IN LISTS files)
  file(READ ${file} text)
  get_filename_component(name ${file} NAME)
  if(text MATCHES "\\)embedded\"")
    message(FATAL_ERROR "${file} contains )embedded\", which would end its text in ${OUTPUT}")
  endif()
  string(APPEND entries "      {\"${name}\", R\"embedded(${text})embedded\"},\n")
endforeach()
file(WRITE ${OUTPUT} "#include \"interop/model_code.h\"

namespace rodimus {

std::span<const ModelCode> model_code() {
  static constexpr ModelCode kFiles[] = {
${entries}  };
  return kFiles;
}

}  // namespace rodimus
")
