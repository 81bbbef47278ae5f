# For ggml's build, with the feature cpu-variants: the variants that this directory does not name for the architecture are
# left empty, as each takes a minute to compile, and compilers do not know the newest CPUs. Named in
# CMAKE_PROJECT_ggml_INCLUDE, so it is read when the project `ggml` begins.
file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/${CMAKE_SYSTEM_PROCESSOR}.txt GEMMAD_CPU_VARIANTS)

function(gemmad_leave_out_variants)
  list(TRANSFORM GEMMAD_CPU_VARIANTS PREPEND ggml-cpu- OUTPUT_VARIABLE packed)
  get_directory_property(targets DIRECTORY src BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS packed)
    if(NOT target IN_LIST targets)
      message(FATAL_ERROR "ggml has no ${target}, which cross/cpu-variants/${CMAKE_SYSTEM_PROCESSOR}.txt names")
    endif()
  endforeach()
  set(empty ${CMAKE_BINARY_DIR}/left-out.c)
  file(WRITE ${empty} "int left_out;\n")
  foreach(target IN LISTS targets)
    if(target MATCHES "^ggml-cpu-" AND NOT target MATCHES "-feats$" AND NOT target IN_LIST packed)
      set_target_properties(${target} PROPERTIES SOURCES ${empty} LINK_LIBRARIES "" COMPILE_OPTIONS "")
    endif()
  endforeach()
  # ggml would look for libraries in the build directory. The worker says where they are, and packages are to be the same
  # wherever they are built.
  get_target_property(definitions ggml COMPILE_DEFINITIONS)
  list(FILTER definitions EXCLUDE REGEX "^GGML_BACKEND_DIR=")
  set_target_properties(ggml PROPERTIES COMPILE_DEFINITIONS "${definitions}")
endfunction()
cmake_language(DEFER CALL gemmad_leave_out_variants)
