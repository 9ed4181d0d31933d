"""mypy reads the two files beside this one in ``make check``; here is what it relies on."""

from __future__ import annotations

import inspect
from importlib.resources import files

import convert_middleware


def test_the_package_says_that_it_is_typed() -> None:
    assert files(convert_middleware).joinpath("py.typed").is_file()


def test_every_public_function_has_annotations() -> None:
    for name in convert_middleware.__all__:
        public = getattr(convert_middleware, name)
        functions = (
            [public]
            if inspect.isfunction(public)
            else [
                function for key, function in inspect.getmembers(public, inspect.isfunction) if key[0] != "_"
            ]
        )
        for function in functions:
            signature = inspect.signature(function)
            assert signature.return_annotation is not inspect.Signature.empty, f"{name}: {function}"
            for parameter in signature.parameters.values():
                assert parameter.name == "self" or parameter.annotation is not inspect.Parameter.empty, (
                    function
                )
