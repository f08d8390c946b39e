# mlc-llm's libraries with CMake, as third_party/{mlc_llm,tokenizers_cpp,sentencepiece,xgrammar}/*.BUILD.bazel build them.
#
# Upstream's CMakeLists.txt wants TVM's repository and its submodules, which no package has, and would compile another runtime.
# Variables: MLC_LLM, TOKENIZERS_CPP, SENTENCEPIECE, XGRAMMAR, CXX_HEADERS (folders), CARGO_COMMAND (that of Bazel's action).

function(linked_library name)
  add_library(${name} STATIC ${ARGN})
  target_compile_options(${name} PRIVATE -std=c++17 ${HIDDEN})
endfunction()

add_custom_command(OUTPUT libtokenizers_c.a COMMAND ${CARGO_COMMAND} VERBATIM)
add_custom_target(tokenizers_c DEPENDS libtokenizers_c.a)

set(PROTOBUF ${SENTENCEPIECE}/third_party/protobuf-lite)
file(GLOB_RECURSE SENTENCEPIECE_SOURCES ${PROTOBUF}/*.cc)
file(GLOB SENTENCEPIECE_MESSAGES ${SENTENCEPIECE}/src/builtin_pb/*.cc)
set(SENTENCEPIECE_NAMES bpe_model char_model error filesystem model_factory model_interface normalizer sentencepiece_processor
                        unigram_model util word_model)
list(TRANSFORM SENTENCEPIECE_NAMES REPLACE "(.+)" "${SENTENCEPIECE}/src/\\1.cc")
list(APPEND SENTENCEPIECE_SOURCES ${SENTENCEPIECE_MESSAGES} ${SENTENCEPIECE_NAMES} ${SENTENCEPIECE}/third_party/absl/flags/flag.cc)
linked_library(sentencepiece ${SENTENCEPIECE_SOURCES})
target_compile_options(sentencepiece PRIVATE -w)
target_compile_definitions(sentencepiece PRIVATE HAVE_PTHREAD=1 _USE_INTERNAL_STRING_VIEW)
target_include_directories(
  sentencepiece SYSTEM
  PUBLIC ${SENTENCEPIECE}/src
         ${SENTENCEPIECE}/src/builtin_pb
         ${SENTENCEPIECE}/third_party
         ${PROTOBUF}
         ${WORKSPACE}/third_party/sentencepiece/include)
target_include_directories(sentencepiece PRIVATE ${SENTENCEPIECE})

file(GLOB TOKENIZERS_SOURCES ${TOKENIZERS_CPP}/src/*.cc)
linked_library(tokenizers_cpp ${TOKENIZERS_SOURCES})
target_compile_definitions(tokenizers_cpp PRIVATE MLC_ENABLE_SENTENCEPIECE_TOKENIZER PUBLIC MSGPACK_NO_BOOST)
target_include_directories(tokenizers_cpp SYSTEM PUBLIC ${TOKENIZERS_CPP}/include ${CXX_HEADERS}/usr/include)
target_link_libraries(tokenizers_cpp PUBLIC ${CMAKE_CURRENT_BINARY_DIR}/libtokenizers_c.a sentencepiece dl m pthread)
add_dependencies(tokenizers_cpp tokenizers_c)

file(GLOB XGRAMMAR_SOURCES ${XGRAMMAR}/cpp/*.cc ${XGRAMMAR}/cpp/support/*.cc)
linked_library(xgrammar ${XGRAMMAR_SOURCES})
target_compile_definitions(xgrammar PRIVATE XGRAMMAR_ENABLE_LOG_DEBUG=0)
target_include_directories(xgrammar SYSTEM PUBLIC ${XGRAMMAR}/3rdparty/picojson ${XGRAMMAR}/include)
target_include_directories(xgrammar SYSTEM PRIVATE ${TVM_FFI}/tvm_ffi/3rdparty/dlpack/include ${TVM_FFI}/tvm_ffi/include)

file(GLOB_RECURSE MLC_LLM_SOURCES ${MLC_LLM}/cpp/*.cc)
add_library(mlc_llm_objects OBJECT ${MLC_LLM_SOURCES})
target_compile_options(mlc_llm_objects PRIVATE -std=c++17 -ffast-math ${HIDDEN})
target_compile_definitions(mlc_llm_objects PRIVATE MLC_LLM_EXPORTS MSGPACK_NO_BOOST XGRAMMAR_ENABLE_LOG_DEBUG=0 __STDC_FORMAT_MACROS=1)
target_include_directories(mlc_llm_objects PRIVATE ${TVM})
target_include_directories(
  mlc_llm_objects SYSTEM
  PRIVATE ${CXX_HEADERS}/usr/include/stb
          ${TOKENIZERS_CPP}/include
          ${TVM}/tvm/3rdparty/compiler-rt
          ${TVM}/tvm/include
          ${WORKSPACE}/third_party/tvm/include
          ${TVM_FFI}/tvm_ffi/3rdparty/dlpack/include
          ${TVM_FFI}/tvm_ffi/include
          ${XGRAMMAR}/3rdparty/picojson
          ${XGRAMMAR}/include)

set(EXPORTS ${WORKSPACE}/third_party/mlc_llm/exports.map)
foreach(name mlc_llm mlc_llm_module)
  add_library(${name} SHARED $<TARGET_OBJECTS:mlc_llm_objects>)
  set_target_properties(${name} PROPERTIES LINK_DEPENDS ${EXPORTS})
  target_link_options(${name} PRIVATE -Wl,--version-script=${EXPORTS} -Wl,-rpath,$ORIGIN:$ORIGIN/../tvm/lib:$ORIGIN/../tvm_ffi/lib -Wl,-z,defs)
  target_link_libraries(${name} PRIVATE tokenizers_cpp xgrammar libstdcxx_compat tvm_runtime_extra tvm_runtime tvm_ffi m pthread dl)
endforeach()
