"""py_wheel and py_package under their upstream load path."""

load("//python/private:wheel.bzl", _PyWheelInfo = "PyWheelInfo", _py_package = "py_package", _py_wheel = "py_wheel", _py_wheel_dist = "py_wheel_dist", _py_wheel_rule = "py_wheel_rule")

PyWheelInfo = _PyWheelInfo
py_package = _py_package
py_wheel = _py_wheel
py_wheel_dist = _py_wheel_dist
py_wheel_rule = _py_wheel_rule
