"""The image rules under their upstream load path."""

load("//oci/private:image.bzl", _oci_image = "oci_image", _oci_image_index = "oci_image_index", _oci_image_index_rule = "oci_image_index_rule", _oci_image_rule = "oci_image_rule")
load("//oci/private:transfer.bzl", _oci_load = "oci_load", _oci_push = "oci_push", _oci_push_rule = "oci_push_rule")

oci_image = _oci_image
oci_image_index = _oci_image_index
oci_image_index_rule = _oci_image_index_rule
oci_image_rule = _oci_image_rule
oci_load = _oci_load
oci_push = _oci_push
oci_push_rule = _oci_push_rule
