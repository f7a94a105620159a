"""What a simple function of an on-demand feature view computes, as expressions that the engine evaluates by itself.

Many functions add, compare and choose, row by row. Of one whose source text consists of nothing else, the engine gets an
expression per feature and computes it on its columns, without calling the function: no process is asked, no frame is
made, and the rows of a request need no Python at all. The text is read, never run.

What may stand in such a function is what this module knows the exact meaning of; any other function is called as ever.
The same holds for values: where a row meets something that Python would do otherwise than plain arithmetic (raise, grow
beyond 64 bits, round to something else), the engine gives up the expressions of that call, and the function is called.
"""

from __future__ import annotations

import ast
import copy
import json
import struct
import textwrap
import warnings
from dataclasses import dataclass, field
from typing import Any

from feast.transformation._functions import (
    HELPERS_MARK,
    LAMBDA,
    defined_names,
    is_common,
    names_of_others,
    parsed,
)

# Nodes of all expressions of a function; branches repeat what stands behind them.
_MOST_NODES = 4000
_MOST_LOCALS = 250
_MODULES = {"pandas", "numpy", "math", "typing", "datetime"}
_OPERATORS = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
}
_COMPARISONS = {
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
}
# What frames have the same meaning for as numbers do. pandas divides whole numbers by zero in its own ways.
_OF_FRAMES = {"add", "sub", "mul", "div", *_COMPARISONS.values()}
# What changes the meaning of a function, even where it is never reached.
_ELSEWHERE = (
    ast.Yield,
    ast.YieldFrom,
    ast.Await,
    ast.Global,
    ast.Nonlocal,
    ast.NamedExpr,
    ast.Lambda,
)
_FLOATS = {"float", "float64"}
_WHOLES = {"int", "int64"}

Expression = list[Any]


class _Unknown(Exception):
    """The function does something that is not known exactly."""


@dataclass
class _Cell:
    """A value of one row, or the same for all."""

    expression: Expression


@dataclass
class _Column:
    """A list or a series with a value per row: the expression of one of them."""

    expression: Expression


@dataclass
class _Table:
    """A dictionary of results, or a frame, with what it holds by now."""

    members: dict[str, _Cell | _Column] = field(default_factory=dict)
    # Whether it has the columns of the input, too.
    is_input: bool = False


@dataclass
class _Function:
    parameters: list[str]
    body: list[ast.stmt]
    names: dict[str, Any]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Function:
        return _Function(self.parameters, self.body, copy.deepcopy(self.names, memo))


@dataclass
class _Module:
    name: str


@dataclass
class _Length:
    """The number of rows, which is that of this column."""

    expression: Expression


@dataclass
class _Position:
    """The number of the row."""


def expressions_of(name: str, text: str, body: bytes, mode: str) -> str | None:
    """The expressions of a function, as JSON; `None` when it has to be called.

    `mode` says what the function is given: `columns` (a dictionary of lists), `rows` (a dictionary of values, once per
    row) or `frame` (a pandas DataFrame).
    """
    if not text.strip():
        return None
    helpers = body.partition(HELPERS_MARK)[2].decode(errors="replace")
    # What Python warns of, it says when it loads the function.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        return _expressions_of(name, text, helpers, mode)


def _expressions_of(name: str, text: str, helpers: str, mode: str) -> str | None:
    try:
        module = parsed(textwrap.dedent(text), "<function>")
        before = ast.parse(helpers)
        function = _function_of(module, name)
        if not all(map(is_common, names_of_others(before, module))):
            # The text cannot work alone.
            return None
        expression = _Reader(mode, [before, module]).read(function)
        written = json.dumps(expression, allow_nan=False)
    except (_Unknown, SyntaxError, ValueError, RecursionError):
        return None
    return written


def _function_of(module: ast.Module, name: str) -> _Function:
    """The function that the loader takes for that of the view."""
    functions = [one for one in module.body if isinstance(one, ast.FunctionDef)]
    named = [one for one in functions if one.name == name] or functions[-1:]
    if named:
        # Whatever decorates it made the view of it.
        named[-1].decorator_list = []
        return _function(named[-1].args, named[-1].body, {})
    for one in module.body:
        if (
            isinstance(one, ast.Assign)
            and isinstance(one.value, ast.Lambda)
            and LAMBDA in defined_names(module)
        ):
            return _function(one.value.args, [ast.Return(one.value.body)], {})
    raise _Unknown


def _function(arguments: ast.arguments, body: list[ast.stmt], names: dict[str, Any]) -> _Function:
    if (
        arguments.vararg
        or arguments.kwarg
        or arguments.kwonlyargs
        or arguments.posonlyargs
        or arguments.defaults
    ):
        raise _Unknown
    return _Function([one.arg for one in arguments.args], body, names)


class _Reader:
    def __init__(self, mode: str, modules: list[ast.Module]) -> None:
        self.mode = mode
        self.locals = 0
        self.nodes = 0
        self.calling: list[list[ast.stmt]] = []
        self.globals: dict[str, Any] = {}
        self.defined: set[str] = set()
        for module in modules:
            self.defined |= defined_names(module)
        seen: set[str] = set()
        for module in modules:
            for one in module.body:
                self._global(one, seen)

    def _global(self, one: ast.stmt, seen: set[str]) -> None:
        """Takes in what a module binds once: constants, functions, modules."""
        if isinstance(one, ast.FunctionDef):
            names, found = [one.name], lambda: _function(one.args, one.body, {})
            if one.decorator_list:
                found = _refuse
        elif isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name):
            names = [target.id for target in one.targets if isinstance(target, ast.Name)]
            found = lambda: _constant(one.value)
        else:
            names = sorted(defined_names(ast.Module([one], [])))
            found = lambda: _imported(one)
        for name in names:
            self.globals.pop(name, None)
            if name not in seen:
                try:
                    self.globals[name] = found()
                except _Unknown:
                    pass
            seen.add(name)

    def read(self, function: _Function) -> Expression:
        if len(function.parameters) != 1:
            raise _Unknown
        inputs = _Table(is_input=True)
        result = self.call(function, [inputs])
        if not isinstance(result, _Cell) or result.expression[0] not in ("give", "let", "if"):
            raise _Unknown
        return result.expression

    # --- statements

    def call(self, function: _Function, arguments: list[Any]) -> Any:
        if len(arguments) != len(function.parameters) or function.body in self.calling:
            raise _Unknown
        is_outermost = not self.calling
        self.calling.append(function.body)
        # A name that is bound anywhere in a function is never one of around it.
        names = {**function.names, **dict.fromkeys(_bound_in(function.body))}
        before: list[tuple[int, Expression]] = []
        for name, argument in zip(function.parameters, arguments):
            if isinstance(argument, (_Cell, _Column)):
                # Computed before the function is, whether or not it looks at it.
                argument = self.kept(argument, before)
            names[name] = argument
        result = self.block(function.body, names, is_outermost)
        self.calling.pop()
        return _after(before, result)

    def block(self, statements: list[ast.stmt], names: dict[str, Any], is_outermost: bool) -> Any:
        """What statements return, as one expression: names stand for what they were given."""
        before: list[tuple[int, Expression]] = []
        for at, one in enumerate(statements):
            self.count()
            if isinstance(one, ast.Return):
                if one.value is None:
                    raise _Unknown
                return _after(before, self.returned(one.value, names, is_outermost))
            if isinstance(one, ast.If):
                condition = self.cell(one.test, names)
                behind = statements[at + 1 :]
                branches = [
                    self.block([*branch, *behind], copy.deepcopy(names), is_outermost)
                    for branch in (one.body, one.orelse)
                ]
                if type(branches[0]) is not type(branches[1]):
                    raise _Unknown
                chosen = ["if", condition, branches[0].expression, branches[1].expression]
                return _after(before, type(branches[0])(chosen))
            self.statement(one, names, before)
        if is_outermost:
            raise _Unknown
        return _after(before, _Cell(["none"]))

    def statement(
        self, one: ast.stmt, names: dict[str, Any], before: list[tuple[int, Expression]]
    ) -> None:
        if isinstance(one, ast.Pass):
            return
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
            return
        if isinstance(one, (ast.Import, ast.ImportFrom)):
            for alias in one.names:
                if alias.name == "*":
                    raise _Unknown
                bound = alias.asname or alias.name.partition(".")[0]
                names[bound] = _imported(one) if len(one.names) == 1 else None
            return
        if isinstance(one, ast.FunctionDef):
            if one.decorator_list:
                raise _Unknown
            names[one.name] = _function(one.args, one.body, names)
            return
        if isinstance(one, ast.Assign) and len(one.targets) == 1:
            target, value = one.targets[0], self.value(one.value, names)
        elif isinstance(one, ast.AnnAssign) and one.value is not None:
            target, value = one.target, self.value(one.value, names)
        elif isinstance(one, ast.AugAssign):
            target = one.target
            kept = copy.copy(target)
            kept.ctx = ast.Load()
            value = self.value(ast.BinOp(kept, one.op, one.value), names)
        else:
            raise _Unknown
        if isinstance(value, (_Cell, _Column)):
            value = self.kept(value, before)
        elif isinstance(value, _Table):
            for name, member in value.members.items():
                value.members[name] = self.kept(member, before)
        else:
            raise _Unknown
        if isinstance(target, ast.Name):
            names[target.id] = value
            return
        if not isinstance(target, ast.Subscript) or len(self.calling) > 1:
            raise _Unknown
        table, key = self.value(target.value, names), _text(target.slice)
        if not isinstance(table, _Table) or table.is_input and self.mode != "frame":
            raise _Unknown
        self.check_member(value)
        table.members[key] = value

    def returned(self, node: ast.expr, names: dict[str, Any], is_outermost: bool) -> Any:
        value = self.value(node, names)
        if not is_outermost:
            if not isinstance(value, (_Cell, _Column)):
                raise _Unknown
            return value
        if not isinstance(value, _Table) or value.is_input and self.mode != "frame":
            raise _Unknown
        return _Cell(["give", [[name, one.expression] for name, one in value.members.items()]])

    def check_member(self, value: Any) -> None:
        wanted = _Cell if self.mode == "rows" else _Column
        if not isinstance(value, wanted):
            raise _Unknown

    def kept(self, value: _Cell | _Column, before: list[tuple[int, Expression]]) -> Any:
        """The same value, computed once and before what follows."""
        if value.expression[0] in ("none", "truth", "whole", "number", "text", "local"):
            return value
        number = self.local()
        before.append((number, value.expression))
        return type(value)(["local", number])

    def local(self) -> int:
        self.locals += 1
        if self.locals > _MOST_LOCALS:
            raise _Unknown
        return self.locals - 1

    def count(self) -> None:
        self.nodes += 1
        if self.nodes > _MOST_NODES:
            raise _Unknown

    # --- values

    def cell(self, node: ast.expr, names: dict[str, Any]) -> Expression:
        value = self.value(node, names)
        if not isinstance(value, _Cell):
            raise _Unknown
        return value.expression

    def column(self, node: ast.expr, names: dict[str, Any]) -> _Column:
        value = self.value(node, names)
        if not isinstance(value, _Column):
            raise _Unknown
        return value

    def value(self, node: ast.expr, names: dict[str, Any]) -> Any:
        self.count()
        match node:
            case ast.Constant():
                return _constant(node)
            case ast.Name():
                return self.named(node.id, names)
            case ast.Subscript():
                return self.part(node, names)
            case ast.BinOp():
                kind = _OPERATORS.get(type(node.op))
                if kind is None:
                    raise _Unknown
                return self.operation(kind, [node.left, node.right], names)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=number)) if type(number) in (
                int,
                float,
            ):
                return _constant(node)
            case ast.UnaryOp(op=ast.USub()):
                return self.operation("neg", [node.operand], names)
            case ast.UnaryOp(op=ast.Not()):
                return _Cell(["not", self.cell(node.operand, names)])
            case ast.BoolOp():
                kind = "and" if isinstance(node.op, ast.And) else "or"
                cells = [self.cell(one, names) for one in node.values]
                joined = cells[-1]
                for one in reversed(cells[:-1]):
                    joined = [kind, one, joined]
                return _Cell(joined)
            case ast.IfExp():
                return _Cell(
                    ["if", *(self.cell(one, names) for one in (node.test, node.body, node.orelse))]
                )
            case ast.Compare():
                return self.comparison(node, names)
            case ast.Call():
                return self.called(node, names)
            case ast.ListComp() if self.mode == "columns":
                return self.comprehension(node, names)
            case ast.Dict():
                return self.dictionary(node, names)
        raise _Unknown

    def named(self, name: str, names: dict[str, Any]) -> Any:
        if name in names:
            found = names[name]
        elif name in self.defined:
            found = self.globals.get(name)
        else:
            found = _Module({"pd": "pandas", "np": "numpy"}.get(name, name))
            if found.name not in _MODULES - {"datetime", "typing"}:
                raise _Unknown
        if found is None:
            raise _Unknown
        return found

    def is_builtin(self, node: ast.expr, name: str, names: dict[str, Any]) -> bool:
        return (
            isinstance(node, ast.Name)
            and node.id == name
            and name not in names
            and name not in self.defined
        )

    def part(self, node: ast.Subscript, names: dict[str, Any]) -> Any:
        whole = self.value(node.value, names)
        if isinstance(whole, _Column):
            if isinstance(self.value(node.slice, names), _Position):
                return _Cell(whole.expression)
            raise _Unknown
        if not isinstance(whole, _Table):
            raise _Unknown
        if isinstance(node.slice, ast.List) and self.mode == "frame":
            return _Table({name: self.member(whole, name) for name in map(_text, node.slice.elts)})
        return self.member(whole, _text(node.slice))

    def member(self, table: _Table, name: str) -> Any:
        if name in table.members:
            return table.members[name]
        if not table.is_input:
            raise _Unknown
        return (_Cell if self.mode == "rows" else _Column)(["input", name])

    def operation(self, kind: str, nodes: list[ast.expr], names: dict[str, Any]) -> Any:
        values = [self.value(one, names) for one in nodes]
        if any(not isinstance(one, (_Cell, _Column)) for one in values):
            raise _Unknown
        expression = [kind, *(one.expression for one in values)]
        if all(isinstance(one, _Cell) for one in values):
            return _Cell(expression)
        constants = [one for one in values if isinstance(one, _Cell)]
        if (
            self.mode != "frame"
            or kind not in _OF_FRAMES | {"neg"}
            or any(one.expression[0] not in ("whole", "number") for one in constants)
        ):
            raise _Unknown
        return _Column(expression)

    def comparison(self, node: ast.Compare, names: dict[str, Any]) -> Any:
        if len(node.ops) == 1 and isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            other = node.comparators[0]
            if not isinstance(other, ast.Constant) or other.value is not None:
                raise _Unknown
            same = ["is_none", self.cell(node.left, names)]
            return _Cell(same if isinstance(node.ops[0], ast.Is) else ["not", same])
        kinds = [_COMPARISONS.get(type(one)) for one in node.ops]
        if None in kinds:
            raise _Unknown
        if len(kinds) == 1:
            return self.operation(str(kinds[0]), [node.left, *node.comparators], names)
        # What stands in the middle is computed once.
        before: list[tuple[int, Expression]] = []
        cells = [self.cell(one, names) for one in (node.left, *node.comparators)]
        held = [self.kept(_Cell(one), before).expression for one in cells]
        pairs = [[kind, left, right] for kind, left, right in zip(kinds, held, held[1:])]
        joined = pairs[-1]
        for one in reversed(pairs[:-1]):
            joined = ["and", one, joined]
        return _after(before, _Cell(joined))

    def dictionary(self, node: ast.Dict, names: dict[str, Any]) -> _Table:
        table = _Table()
        for key, member in zip(node.keys, node.values):
            if key is None:
                raise _Unknown
            value = self.value(member, names)
            self.check_member(value)
            if table.members.pop(_text(key), None) is not None:
                raise _Unknown
            table.members[_text(key)] = value
        return table

    def comprehension(self, node: ast.ListComp, names: dict[str, Any]) -> _Column:
        if len(node.generators) != 1:
            raise _Unknown
        loop = node.generators[0]
        if loop.ifs or loop.is_async:
            raise _Unknown
        inner = dict(names)
        before: list[tuple[int, Expression]] = []
        for target, value in self.drawn(loop.target, loop.iter, names, before):
            if not isinstance(target, ast.Name):
                raise _Unknown
            inner[target.id] = self.kept(value, before) if isinstance(value, _Cell) else value
        return _after(before, _Column(self.cell(node.elt, inner)))  # type: ignore[no-any-return]

    def drawn(
        self,
        target: ast.expr,
        source: ast.expr,
        names: dict[str, Any],
        before: list[tuple[int, Expression]],
    ) -> list[tuple[Any, Any]]:
        """What a loop binds for each row."""
        if isinstance(source, ast.Call) and not source.keywords:
            arguments = source.args
            if self.is_builtin(source.func, "zip", names) and arguments:
                if not isinstance(target, ast.Tuple) or len(target.elts) != len(arguments):
                    raise _Unknown
                cells = [_Cell(self.column(one, names).expression) for one in arguments]
                return list(zip(target.elts, cells))
            if self.is_builtin(source.func, "range", names) and len(arguments) == 1:
                length = self.value(arguments[0], names)
                if not isinstance(length, _Length):
                    raise _Unknown
                self.kept(_Column(length.expression), before)
                return [(target, _Position())]
            if self.is_builtin(source.func, "enumerate", names) and len(arguments) == 1:
                if not isinstance(target, ast.Tuple) or len(target.elts) != 2:
                    raise _Unknown
                number, inner = target.elts
                return [(number, _Position()), *self.drawn(inner, arguments[0], names, before)]
        return [(target, _Cell(self.column(source, names).expression))]

    def called(self, node: ast.Call, names: dict[str, Any]) -> Any:
        if any(isinstance(one, ast.Starred) for one in node.args):
            raise _Unknown
        if isinstance(node.func, ast.Attribute):
            return self.method(node, node.func, names)
        if node.keywords or not isinstance(node.func, ast.Name):
            raise _Unknown
        name = node.func.id
        if name in names or name in self.defined:
            function = self.named(name, names)
            if not isinstance(function, _Function):
                raise _Unknown
            return self.call(function, [self.value(one, names) for one in node.args])
        if name == "len" and len(node.args) == 1:
            return _Length(self.column(node.args[0], names).expression)
        if name in ("float", "int", "bool", "abs") and len(node.args) == 1:
            special = {"nan": "nan", "inf": "inf", "-inf": "-inf"}
            argument = node.args[0]
            if name == "float" and isinstance(argument, ast.Constant) and argument.value in special:
                return _Cell(_float(float(argument.value)))  # type: ignore[arg-type]
            return _Cell([name, self.cell(argument, names)])
        if name in ("min", "max") and len(node.args) >= 2:
            cells = [self.cell(one, names) for one in node.args]
            joined = cells[0]
            for one in cells[1:]:
                joined = [name, joined, one]
            return _Cell(joined)
        raise _Unknown

    def method(self, node: ast.Call, function: ast.Attribute, names: dict[str, Any]) -> Any:
        whole = self.value(function.value, names)
        name, arguments = function.attr, node.args
        if isinstance(whole, _Module):
            if (whole.name, name) != ("pandas", "DataFrame") or self.mode != "frame":
                raise _Unknown
            return self.frame(node, names)
        if node.keywords or self.mode != "frame":
            raise _Unknown
        if isinstance(whole, _Table):
            if name != "copy" or arguments:
                raise _Unknown
            return copy.deepcopy(whole)
        if not isinstance(whole, _Column):
            raise _Unknown
        if name == "abs" and not arguments:
            return _Column(["abs", whole.expression])
        if name == "fillna" and len(arguments) == 1:
            filling = self.value(arguments[0], names)
            if not isinstance(filling, _Cell) or filling.expression[0] not in ("whole", "number"):
                raise _Unknown
            return _Column(["fill", whole.expression, filling.expression])
        if name == "astype" and len(arguments) == 1:
            return _Column([self.dtype(arguments[0], names), whole.expression])
        raise _Unknown

    def dtype(self, node: ast.expr, names: dict[str, Any]) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value
        elif isinstance(node, ast.Name) and self.is_builtin(node, node.id, names):
            name = node.id
        elif isinstance(node, ast.Attribute):
            module = self.value(node.value, names)
            if not isinstance(module, _Module) or module.name != "numpy":
                raise _Unknown
            name = node.attr
        else:
            raise _Unknown
        if name in _FLOATS:
            return "float"
        if name in _WHOLES:
            return "int"
        raise _Unknown

    def frame(self, node: ast.Call, names: dict[str, Any]) -> _Table:
        """A new frame: empty, of columns, or empty with the index of the input, which all columns have anyhow."""
        for keyword in node.keywords:
            value = keyword.value
            if (
                keyword.arg != "index"
                or not isinstance(value, ast.Attribute)
                or value.attr != "index"
            ):
                raise _Unknown
            if not isinstance(self.value(value.value, names), _Table):
                raise _Unknown
        if not node.args:
            return _Table()
        if len(node.args) > 1 or not isinstance(node.args[0], ast.Dict):
            raise _Unknown
        return self.dictionary(node.args[0], names)


def _after(before: list[tuple[int, Expression]], value: Any) -> Any:
    """A value, after what has to be computed before it."""
    if not isinstance(value, (_Cell, _Column)):
        if before:
            raise _Unknown
        return value
    expression = value.expression
    for number, one in reversed(before):
        expression = ["let", number, one, expression]
    return type(value)(expression)


def _bound_in(body: list[ast.stmt]) -> set[str]:
    """Names that statements bind, those of functions and loops inside of them included."""
    bound = set()
    for node in (node for one in body for node in ast.walk(one)):
        if isinstance(node, _ELSEWHERE):
            raise _Unknown
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef):
            bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {one.asname or one.name.partition(".")[0] for one in node.names}
    return bound


def _refuse() -> Any:
    raise _Unknown


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise _Unknown


def _constant(node: ast.expr) -> _Cell:
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    if not isinstance(inner, ast.Constant):
        raise _Unknown
    value = inner.value
    if negative:
        if type(value) not in (int, float):
            raise _Unknown
        value = -value  # type: ignore[operator]
    if value is None:
        return _Cell(["none"])
    if isinstance(value, bool):
        return _Cell(["truth", value])
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return _Cell(["whole", value])
    if isinstance(value, float):
        return _Cell(_float(value))
    if isinstance(value, str):
        return _Cell(["text", value])
    raise _Unknown


def _float(value: float) -> Expression:
    # Bits, because decimal digits would have to be read to the last of them.
    return ["number", struct.unpack("<Q", struct.pack("<d", value))[0]]


def _imported(node: ast.stmt) -> Any:
    """The module that one import binds."""
    if isinstance(node, ast.Import) and len(node.names) == 1:
        alias = node.names[0]
        if alias.name in _MODULES:
            return _Module(alias.name)
    if isinstance(node, ast.ImportFrom) and not node.level and node.module in _MODULES:
        return None
    raise _Unknown
