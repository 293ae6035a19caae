"""Forms: the functions that compute a mechanism, the search for them, and the validation of their arguments.

A form says in its signature what it takes, in jaxtyping's notation:

    @form
    def recurrent(q: Float[Array, "*batch T K"], k: ..., v: Float[Array, "*batch T V"], *, state=None): ...

Every call is checked before the body runs. An axis gets its size from the first argument that has it, and the
later ones must agree; 4*H is four times the size of H. A batch axis may have no elements, and so may T, time, and S,
the keys kept: of no tokens y is empty, and the state is the one given, None included. Every other axis has at least one
element. `Float` means real
numbers: floating point, or exact numbers in an array of objects; `Complex` means complex ones. `models.precision`
promotes precisions that differ. Options annotated `int` are counts, at least 1; options that are NumPy's scalars
become Python's numbers, which promote no array.
"""

import functools
import importlib
import pkgutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import (
    Any,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    overload,
    runtime_checkable,
)

from minigrad import namespace
from models.kernels.dispatch import check_alike
from models.mechanism import Mechanism
from models.precision import array_kinds, cast_all, dtype_name, number, precision, round_all, suits_kernels

P = ParamSpec("P")
R = TypeVar("R")

Array: TypeAlias = Any  # an array of any library that follows the array API standard, or a Tensor

FAMILIES = ("attention", "memory", "recurrent", "ssm")  # the packages whose modules are mechanisms

Work: TypeAlias = Literal["T", "T log T", "FFT", "T²"]  # operations for T tokens; FFT: T log T, by Fourier transforms
Memory: TypeAlias = Literal["T", "T²"]  # numbers held at once, for T tokens


@runtime_checkable
class FormFunction(Protocol):
    """A function under `@form`, with what is declared of it."""

    __name__: str
    compiled: bool
    work: Work
    memory: Memory

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return (y, state)."""


@overload
def form(function: Callable[P, R]) -> Callable[P, R]: ...
@overload
def form(
    *, compiled: bool = False, work: Work = "T", memory: Memory = "T"
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def form(
    function: Callable[..., Any] | None = None, *, compiled: bool = False, work: Work = "T", memory: Memory = "T"
) -> Any:
    """Make a function a form of the mechanism that its module is, and check its arguments on every call.

    A form that is `compiled` runs kernels, and takes the arrays that they take. `work` and `memory` say how operations
    and memory grow with the length. The form has these as attributes.

    Raises TypeError for arguments that are missing or unknown, for what is not an array, or not of the numbers the form
    needs, and ValueError for a size; all in one line that names the form, the argument and what was expected.
    """
    if function is None:
        return functools.partial(form, compiled=compiled, work=work, memory=memory)
    wrapper = checked(function, compiled=compiled)
    vars(wrapper).update(compiled=compiled, work=work, memory=memory)
    return wrapper


def checked(function: Callable[P, R], *, compiled: bool = False) -> Callable[P, R]:
    """Check and promote a function's arguments on every call as those of a form are, without making it one.

    Raises what `form` says.
    """
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    required = positional[: len(positional) - len(function.__defaults__ or ())]
    checks = [(name, check) for name in names if (check := _check_for(function.__annotations__.get(name)))]
    label = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    prepared = _for_kernel if compiled else _promote
    compute: Callable[..., Any] = function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        sizes: _Sizes = {}
        try:
            arguments = _bind(args, kwargs, names, positional, required)
            for name, check in checks:
                if name in arguments:
                    arguments[name] = check(name, arguments[name], sizes)
            arguments, short = prepared(arguments)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{label}: {error}") from None
        result = compute(**arguments) if sizes.get("T", (1,))[0] else _without_tokens(function, arguments, sizes)
        return result if short is None else round_all(result, short)

    return call


def mechanisms() -> dict[str, dict[str, FormFunction]]:
    """Find every mechanism with its forms, plainest first: {"memory.delta_rule": {"recurrent": …, "chunkwise": …}}.

    A mechanism is a module with forms in a folder of a family's `__path__`, which may be extended.
    """
    return {name: _forms_of(module) for name, module in _modules()}


def declarations() -> dict[str, Mechanism]:
    """Return the declaration of every mechanism. Raises TypeError, naming the mechanism, where there is none."""
    declared: dict[str, Mechanism] = {}
    for name, module in _modules():
        mechanism = getattr(module, "MECHANISM", None)
        if not isinstance(mechanism, Mechanism):
            raise TypeError(f"{name}: MECHANISM is missing, expected a models.mechanism.Mechanism beside the forms")
        declared[name] = mechanism
    return declared


def _modules() -> Iterator[tuple[str, types.ModuleType]]:
    """Yield the modules of the families that have forms, by name."""
    for family in FAMILIES:
        package = importlib.import_module(f"models.{family}")
        for name in sorted(info.name for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")):
            module = importlib.import_module(name)
            if _forms_of(module):
                yield name.removeprefix("models."), module


def _forms_of(module: types.ModuleType) -> dict[str, FormFunction]:
    """Return the forms that a module defines, in order."""
    return {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and isinstance(value, FormFunction)  # slow, so last
    }


def _promote(arguments: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the arguments in one precision, and the dtype of two bytes that results are rounded to, if any."""
    common = precision(array_kinds(arguments.values()))
    return (arguments, None) if common is None else (cast_all(arguments, common), common.result)


def _for_kernel(arguments: dict[str, Any]) -> tuple[dict[str, Any], None]:
    """Return the arguments as kernels take them. Raises TypeError for a precision that none takes, or several."""
    if not suits_kernels(array_kinds(arguments.values())):
        arguments = cast_all(arguments, None)
        check_alike(arguments)
    return arguments, None


def _without_tokens(function: Callable[..., Any], arguments: Mapping[str, Any], sizes: "_Sizes") -> tuple[Array, Any]:
    """Return (y, state) of a sequence of no tokens: y is empty, and a state that is None stays None."""
    x = arguments[function.__code__.co_varnames[0]]  # its sum over no tokens is 0, of the dtype and the library of y
    y = _Shape(get_args(function.__annotations__["return"])[0])
    shape = (*sizes["*batch"][0], *(sizes[axis][0] for axis in y.axes))
    return namespace(x).broadcast_to(namespace(x).sum(x), shape), arguments.get("state")


def _bind(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    names: Sequence[str],
    positional: Sequence[str],
    required: Sequence[str],
) -> dict[str, Any]:
    """Return the arguments by name. Raises TypeError where one is missing, unknown, given twice or too many."""
    if len(args) > len(positional):
        expected = f"expected at most {len(positional)} ({', '.join(positional)})"
        raise TypeError(f"{len(args)} arguments were given by position, {expected}")
    arguments = dict(zip(positional, args, strict=False))
    if twice := [name for name in kwargs if name in arguments]:
        raise TypeError(f"argument {', '.join(twice)} was given by position and by name, expected one of them")
    arguments.update(kwargs)
    if missing := [name for name in required if name not in arguments]:
        raise TypeError(f"missing argument{'s' * (len(missing) > 1)} {', '.join(missing)}")
    if unknown := [name for name in kwargs if name not in names]:
        raise TypeError(f"unexpected argument {', '.join(unknown)}, expected {', '.join(names)}")
    return arguments


# An axis that has a size, with the argument it came from. "*batch" stands for all leading axes: its size is a tuple.
_Sizes: TypeAlias = dict[str, tuple[Any, str]]
_Check: TypeAlias = Callable[[str, Any, _Sizes], Any]  # returns the argument, converted


def _check_for(annotation: Any) -> _Check | None:
    """Return the check for an annotation, or None where there is nothing to check."""
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    alternatives = [member for member in members if member is not types.NoneType]
    if alternatives == [int]:
        check: _Check = _check_count
    elif alternatives in ([float], [Any]):
        check = _check_number
    elif all(hasattr(member, "dim_str") for member in alternatives):
        check = functools.partial(_check_array, [_Shape(member) for member in alternatives])
    elif len(alternatives) == 1 and get_origin(alternatives[0]) is tuple and Ellipsis not in get_args(alternatives[0]):
        check = functools.partial(_check_tuple, [_check_for(item) for item in get_args(alternatives[0])])
    else:
        return None
    if len(alternatives) < len(members):
        return lambda name, value, sizes: None if value is None else check(name, value, sizes)
    return check


class _Shape:
    """A parsed annotation such as Float[Array, "*batch T K"]."""

    def __init__(self, annotation: Any):
        self.text: str = annotation.dim_str
        self.axes = self.text.split()
        self.leading = self.axes.pop(0) if self.axes[0] in ("*batch", "...") else None  # any number of leading axes
        self.dtypes = set(annotation.dtypes)
        if "float64" in self.dtypes:
            self.dtypes |= {"float128", "object"}  # reals that jaxtyping does not list: long doubles, exact numbers
        if "complex128" in self.dtypes:
            self.dtypes |= {"complex256", "object"}

    @property
    def kind(self) -> str:
        """The numbers expected, in words."""
        return "bool" if "bool" in self.dtypes else "real floating point" if "float64" in self.dtypes else "complex"


def _check_array(alternatives: Sequence[_Shape], name: str, value: Any, sizes: _Sizes) -> Any:
    expected = " or ".join(alternative.text for alternative in alternatives).replace("...", "any")
    try:
        shape, dtype = tuple(value.shape), dtype_name(value.dtype)
    except AttributeError:
        raise TypeError(f"{name} is {_describe(name, value)}, expected an array of shape {expected}") from None
    alternative = _alternative_of_rank(len(shape), alternatives, sizes)
    if dtype not in alternative.dtypes:
        raise TypeError(f"{name} has dtype {dtype}, expected {alternative.kind}")

    context = f"(shape {shape}, expected {expected})"
    batch = len(shape) - len(alternative.axes)
    if batch < 0 or (batch > 0 and not alternative.leading):
        least = "at least " if alternative.leading else ""
        raise ValueError(f"{name} has rank {len(shape)}, expected {least}{len(alternative.axes)} {context}")
    leading = [("*batch", shape[:batch])] if alternative.leading == "*batch" else []
    for axis, size in [*leading, *zip(alternative.axes, shape[batch:], strict=True)]:
        factor, base = axis_factor(axis)
        if factor > 1 and size % factor:
            raise ValueError(f"{name} has {size} on axis {axis}, expected a multiple of {factor} {context}")
        first_size, source = sizes.setdefault(base, (size // factor if factor > 1 else size, name))
        expected_size = first_size * factor
        if size != expected_size:
            why = _time_before_heads(size, expected_size, source, sizes) if axis == "*batch" else ""
            raise ValueError(
                f"{name} has {size} on axis {axis}, expected {expected_size} as in {source} {context}{why}"
            )
        if size == 0 and axis not in ("T", "S"):
            raise ValueError(f"{name} has 0 on axis {axis}, expected at least 1 {context}")
    return value


def _time_before_heads(batch: tuple[int, ...], expected: tuple[int, ...], source: str, sizes: _Sizes) -> str:
    """Return the suspicion that `source` is (…, T, H, K): its last batch axis and its time would fit, exchanged."""
    time, _ = sizes.get("T", (None, ""))
    if not expected or batch != (*expected[:-1], time):
        return ""
    return f": {source} seems to have time before heads, (…, T, H, features), expected (…, H, T, features)"


def axis_factor(axis: str) -> tuple[int, str]:
    """Return the factor of an axis and the axis that it multiplies: (4, "H") of "4*H", (1, "T") of "T"."""
    factor, _, base = axis.rpartition("*")
    return (int(factor), base) if factor else (1, axis)


def _describe(name: str, value: Any) -> str:
    """Describe a value that was given instead of an array."""
    if isinstance(value, tuple) and len(value) == 2:
        member = "second" if name.startswith("state") else "first"
        return f"a tuple of 2 (a form returns (y, state): pass its {member} member)"
    if isinstance(value, list):
        return "a list (numpy.asarray makes an array of it)"
    return f"of type {type(value).__name__}"


def _alternative_of_rank(rank: int, alternatives: Sequence[_Shape], sizes: _Sizes) -> _Shape:
    """Choose the alternative whose axes, with the batch axes known so far, are as many as the argument has."""
    batch, _ = sizes.get("*batch", ((), ""))
    for alternative in alternatives:
        if rank == len(alternative.axes) + (len(batch) if alternative.leading else 0):
            return alternative
    return alternatives[0]


def _check_tuple(checks: Sequence[_Check | None], name: str, value: Any, sizes: _Sizes) -> Any:
    if not isinstance(value, tuple) or len(value) != len(checks):
        came = f"has {len(value)} items" if isinstance(value, tuple) else f"is of type {type(value).__name__}"
        raise TypeError(f"{name} {came}, expected a tuple of {len(checks)} arrays")
    for i, (check, item) in enumerate(zip(checks, value, strict=True)):
        if check:
            check(f"{name}[{i}]", item, sizes)
    return value


def _check_number(name: str, value: Any, sizes: _Sizes) -> Any:
    return number(name, value)


def _check_count(name: str, value: Any, sizes: _Sizes) -> int:
    if not isinstance(value, Integral):
        raise TypeError(f"{name} is {value!r}, expected an integer of at least 1")
    if value < 1:
        raise ValueError(f"{name} is {value}, expected an integer of at least 1")
    return int(value)
