# libcistern: the client library as a shared object that shows nothing but its public calls, and the nbdkit plugin on it.
include(GNUInstallDirs)
set(CISTERN_LIBDIR ${CMAKE_INSTALL_LIBDIR})
set(LIBCISTERN_MAP ${CMAKE_CURRENT_SOURCE_DIR}/vbs/libcistern.map)

file(WRITE ${CMAKE_BINARY_DIR}/libcistern_empty.c "/* The objects come from cistern_svc_vbs. */\ntypedef int libcistern_empty;\n")
add_library(libcistern SHARED ${CMAKE_BINARY_DIR}/libcistern_empty.c)
add_dependencies(libcistern cistern_svc_vbs)
target_link_libraries(libcistern PRIVATE -Wl,--whole-archive $<TARGET_FILE:cistern_svc_vbs> -Wl,--no-whole-archive cistern_svc_cluster)
target_link_options(libcistern PRIVATE -Wl,--version-script=${LIBCISTERN_MAP})
set_target_properties(libcistern PROPERTIES OUTPUT_NAME cistern VERSION ${PROJECT_VERSION} SOVERSION 0
  LINK_DEPENDS "${LIBCISTERN_MAP};$<TARGET_FILE:cistern_svc_vbs>" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
file(RELATIVE_PATH CISTERN_PREFIX_FROM_PC "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" CISTERN_PREFIX_FROM_PC "${CISTERN_PREFIX_FROM_PC}")
configure_file(${CMAKE_CURRENT_SOURCE_DIR}/vbs/cistern.pc.in ${CMAKE_BINARY_DIR}/cistern.pc @ONLY)
install(TARGETS libcistern LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${CMAKE_CURRENT_SOURCE_DIR}/vbs/cistern.h DESTINATION include)
install(FILES ${CMAKE_BINARY_DIR}/cistern.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

find_path(NBDKIT_INCLUDE nbdkit-plugin.h)
if(NBDKIT_INCLUDE)
  add_library(nbdkit_cistern MODULE ${CMAKE_CURRENT_SOURCE_DIR}/vbs/nbdkit_cistern.c)
  target_link_libraries(nbdkit_cistern PRIVATE libcistern)
  set_target_properties(nbdkit_cistern PROPERTIES PREFIX "" OUTPUT_NAME nbdkit-cistern-plugin
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
  install(TARGETS nbdkit_cistern LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/nbdkit/plugins)
endif()
