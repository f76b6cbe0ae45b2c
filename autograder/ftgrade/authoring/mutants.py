"""Small changes of a reference, made one at a time: what a slip of the hand would write."""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div, ast.Mult),
    ast.Pow: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
NAMES = {
    "mean": "sum", "sum": "mean", "min": "max", "max": "min", "any": "all", "all": "any", "log": "log2", "exp": "expm1",
    "log_softmax": "softmax", "softmax": "log_softmax", "logsigmoid": "sigmoid", "sqrt": "square", "triu": "tril",
    "repeat_interleave": "repeat", "cumsum": "cumprod", "argmax": "argmin", "zeros": "ones", "ones": "zeros",
}  # fmt: skip
TRANSPOSES = ("T", "mT")
NO_FORMULA = ("device", "strict")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the function that it stands in, what it was, what it is, and the whole changed source."""

    function: str
    before: str
    after: str
    source: str

    @property
    def name(self) -> str:
        return f"{self.function}: {self.before} -> {self.after}"


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a reference's functions, in the order of the source; each has a name of its own.

    Operators, comparisons, constants, negations, transposes, reductions and terms are changed, and statements that
    refuse an input are dropped. Docstrings, annotations, messages and defaults of signatures stay as they are.
    """
    tree = ast.parse(source)
    seen: dict[str, int] = {}
    for position, function in enumerate(tree.body):
        if not isinstance(function, ast.FunctionDef):
            continue
        for before, after, body in changed_bodies(function):
            module = ast.Module([*tree.body[:position], body, *tree.body[position + 1 :]], type_ignores=[])
            mutant = Mutant(function.name, before, after, ast.unparse(ast.fix_missing_locations(module)))
            seen[mutant.name] = seen.get(mutant.name, 0) + 1
            repeated = seen[mutant.name]
            yield mutant if repeated == 1 else Mutant(function.name, f"{before} (#{repeated})", after, mutant.source)


def changed_bodies(function: ast.FunctionDef) -> Iterator[tuple[str, str, ast.FunctionDef]]:
    """Yield each change of a function's body: the words before and after, and the changed function."""
    first = 1 if ast.get_docstring(function) is not None else 0
    for path, node in places(function.body[first:], ("body",), first):
        for replacement in replacements(node):
            changed = copy.deepcopy(function)
            replace_at(changed, path, replacement)
            after = "nothing" if isinstance(replacement, ast.Pass) else ast.unparse(replacement)
            yield shorten(ast.unparse(node)), shorten(after), changed


Path = tuple[str | int, ...]


def places(nodes: list[ast.stmt], path: Path, offset: int) -> Iterator[tuple[Path, ast.AST]]:
    """Yield every node of a body that may be changed, with the way to it."""
    for index, node in enumerate(nodes):
        yield from walk(node, (*path, index + offset))


def walk(node: ast.AST, path: Path) -> Iterator[tuple[Path, ast.AST]]:
    yield path, node
    if isinstance(node, ast.Raise) or (isinstance(node, ast.keyword) and node.arg in NO_FORMULA):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        if isinstance(value, ast.AST):
            yield from walk(value, (*path, name))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield from walk(item, (*path, name, index))


def replace_at(root: ast.AST, path: Path, replacement: ast.AST) -> None:
    """Put a node where a path leads."""
    target: object = root
    for step in path[:-1]:
        target = target[step] if isinstance(step, int) else getattr(target, step)  # pyright: ignore[reportIndexIssue]
    last = path[-1]
    if isinstance(last, int):
        target[last] = replacement  # pyright: ignore[reportIndexIssue]
    else:
        setattr(target, last, replacement)


def shorten(text: str, length: int = 70) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


# ------------------------------------------------------------------------------------------------------- the changes


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place."""
    for kind, change in CHANGES.items():
        if isinstance(node, kind):
            yield from change(node)


def of_operation(node: ast.BinOp) -> Iterator[ast.AST]:
    """Another operator, and each term alone; a matrix product with its factors exchanged."""
    for other in OPERATORS.get(type(node.op), ()):
        yield ast.BinOp(node.left, other(), node.right)
    if isinstance(node.op, ast.MatMult):
        yield ast.BinOp(node.right, node.op, node.left)
    if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.Pow | ast.BitAnd | ast.BitOr):
        yield node.left
    if isinstance(node.op, ast.Add | ast.Mult | ast.BitAnd | ast.BitOr):
        yield node.right


def of_comparison(node: ast.Compare) -> Iterator[ast.AST]:
    for index, operator in enumerate(node.ops):
        for other in COMPARISONS.get(type(operator), ()):
            yield ast.Compare(node.left, [*node.ops[:index], other(), *node.ops[index + 1 :]], node.comparators)


def of_constant(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield ast.Constant(node.value * 2 if node.value else 1.0)


def of_unary(node: ast.UnaryOp) -> Iterator[ast.AST]:
    if isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield node.operand


def of_logic(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    for index in range(len(node.values)):
        rest = [*node.values[:index], *node.values[index + 1 :]]
        yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)


def of_attribute(node: ast.Attribute) -> Iterator[ast.AST]:
    if node.attr in TRANSPOSES:
        yield node.value
    if node.attr in NAMES:
        yield ast.Attribute(node.value, NAMES[node.attr], node.ctx)


def of_call(node: ast.Call) -> Iterator[ast.AST]:
    """A transposition left out, a built-in exchanged, and each keyword left out."""
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("transpose", "clone", "detach", "sort"):
        yield node.func.value
    if isinstance(node.func, ast.Name) and node.func.id in NAMES:
        yield ast.Call(ast.Name(NAMES[node.func.id], ast.Load()), node.args, node.keywords)
    if isinstance(node.func, ast.Name) and node.func.id in ("sorted", "abs") and len(node.args) == 1:
        yield node.args[0]
    for index in range(len(node.keywords)):
        if node.keywords[index].arg not in (*NO_FORMULA, None):
            yield ast.Call(node.func, node.args, [*node.keywords[:index], *node.keywords[index + 1 :]])


def of_choice(node: ast.IfExp) -> Iterator[ast.AST]:
    yield node.body
    yield node.orelse


def of_condition(node: ast.If) -> Iterator[ast.AST]:
    """Leave the statement out, as one who didn't think of the case."""
    yield ast.Pass()


def of_loop(node: ast.comprehension) -> Iterator[ast.AST]:
    for index in range(len(node.ifs)):
        yield ast.comprehension(node.target, node.iter, [*node.ifs[:index], *node.ifs[index + 1 :]], node.is_async)


CHANGES: dict[type[ast.AST], Callable[..., Iterator[ast.AST]]] = {
    ast.BinOp: of_operation,
    ast.Compare: of_comparison,
    ast.Constant: of_constant,
    ast.UnaryOp: of_unary,
    ast.BoolOp: of_logic,
    ast.Attribute: of_attribute,
    ast.Call: of_call,
    ast.IfExp: of_choice,
    ast.If: of_condition,
    ast.comprehension: of_loop,
}

__all__ = ["Mutant", "mutants"]
