"""The image rules under their upstream load path."""

load("//oci/private:image.bzl", _oci_image = "oci_image", _oci_image_index = "oci_image_index", _oci_image_index_rule = "oci_image_index_rule", _oci_image_rule = "oci_image_rule")
load("//oci/private:load.bzl", _oci_load = "oci_load")

oci_image = _oci_image
oci_image_index = _oci_image_index
oci_image_index_rule = _oci_image_index_rule
oci_image_rule = _oci_image_rule
oci_load = _oci_load
