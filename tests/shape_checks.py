"""The type checker of the import hook: beartype, with int for float as PEP 484 says; each check is written once, late.

jaxtyping writes and compiles two functions for every function that it decorates: milliseconds each time, and a function
inside another is decorated anew whenever the outer one runs. `lazily` waits for the first call, and lets all functions
of one source share what was compiled for the first of them. A function whose annotations name no array is left alone:
a check costs over a hundred microseconds a call, and mypy has read all other annotations. For the same reason a source's
call is checked once for each combination of types and shapes that come in and go out, and not each time they come again.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import threading
import types
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


class Shared(threading.local):
    """The check of one source, and the functions of that source that run in this thread, the newest last."""

    def __init__(self) -> None:
        self.running: list[Callable] = []
        self.check: Callable | None = None
        self.seen: set[tuple] = set()

    def checked(self, function: Callable, decorate: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """`function`'s result, with its shapes and those of its arguments checked, if they are new."""
        came = (*map(look, args), *((name, look(value)) for name, value in kwargs.items()))
        if came not in self.seen:
            result = self.called(function, decorate, args, kwargs)
            self.seen |= {came, (came, look(result))}
            return result
        result = function(*args, **kwargs)
        if (gave := (came, look(result))) not in self.seen:
            self.called(lambda *_args, **_kwargs: result, decorate, args, kwargs, like=function)
            self.seen.add(gave)
        return result

    def called(
        self, function: Callable, decorate: Callable, args: tuple, kwargs: dict[str, Any], *, like: Any = None
    ) -> Any:
        """What `function` returns inside the check of `like`, which is itself where nothing else is said."""
        check = self.compiled(like or function, decorate)
        self.running.append(function)
        try:
            return check(*args, **kwargs)
        finally:
            self.running.pop()

    def compiled(self, function: Callable, decorate: Callable[[Callable], Callable]) -> Callable:
        """What checks arguments and result by `function`'s annotations and calls the newest that runs."""
        if self.check is None:
            newest = lambda *args, **kwargs: self.running[-1](*args, **kwargs)
            # The annotations are strings, and mean what they mean in the function's own module.
            stand_in = types.FunctionType(
                newest.__code__, function.__globals__, function.__name__, None, newest.__closure__
            )
            self.check = decorate(functools.update_wrapper(stand_in, function))
            del stand_in.__wrapped__  # or the first function would live on, and whatever it closes over
        return self.check


def look(value: Any) -> Any:
    """What a check reads of a value: an array's type, shape and dtype; of a container the first and last it holds, since
    beartype looks at one only; of all else its type."""
    if hasattr(value, "shape"):
        return type(value), value.shape, getattr(value, "dtype", None)
    if value and isinstance(value, list | tuple):
        return type(value), look(value[0]), look(value[-1])
    if value and isinstance(value, dict):
        return type(value), look(next(iter(value))), look(next(iter(value.values())))
    return type(value)


def names_arrays(function: types.FunctionType) -> bool:
    """Whether an annotation has the shape of an array in it, itself or by the name of an alias in the module."""
    for said in function.__annotations__.values():
        known = (function.__globals__.get(word) for word in re.findall(r"\w+", str(said)))
        if any(
            "jaxtyping" in repr(found) or getattr(found, "__module__", "") == "jaxtyping" for found in known
        ):
            return True
    return False


def lazily(jaxtyped: Callable) -> Callable:
    """`jaxtyping.jaxtyped` that compiles a source's check at the first call of a function that was made of it."""
    sources: dict[tuple[str, str, types.CodeType], Shared] = {}

    def decorated(function: Any, *, typechecker: Any) -> Any:
        if inspect.isclass(function):
            if dataclasses.is_dataclass(function) and "__init__" in vars(function):
                function.__init__ = decorated(function.__init__, typechecker=typechecker)
            return function
        if not isinstance(function, types.FunctionType):
            return jaxtyped(function, typechecker=typechecker)
        if not names_arrays(function):
            return function
        source = (function.__module__, function.__qualname__, function.__code__)
        shared = sources.setdefault(source, Shared())
        decorate = functools.partial(jaxtyped, typechecker=typechecker)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return shared.checked(function, decorate, args, kwargs)

        return call

    def decorator(function: Any = None, *, typechecker: Any) -> Any:
        if function is None:
            return functools.partial(decorated, typechecker=typechecker)
        return decorated(function, typechecker=typechecker)

    return decorator
