"""What the visible check says."""

from ftmath import check


def documented(text: str):
    """Return a decorator that sets a function's docstring."""

    def decorate(function):
        function.__doc__ = text
        return function

    return decorate


DOUBLE = """Return twice x.

    >>> double(2)
    4

    Always: doubling adds up.

    >>> double(1) + double(2) == double(3)
    True
    """


def test_a_right_function_passes_and_is_told_what_is_hidden():
    @documented(DOUBLE)
    def double(x):
        return 2 * x

    result = check(double, "value", points=2, hidden=["zero", "negative numbers"])
    assert result.status == "right"
    assert "zero, negative numbers" in str(result)
    assert result._repr_mimebundle_()["text/plain"] == "2.0"


def test_an_invariant_is_told_from_an_example():
    @documented(DOUBLE)
    def double(x):
        return x * x

    result = check(double, "value", points=2)
    assert result.status == "wrong"
    assert [failure.kind for failure in result.failures] == ["invariant"]
    assert result._repr_mimebundle_()["text/plain"] == "0.0"


def test_an_unwritten_function_is_not_attempted_even_inside_another():
    @documented(DOUBLE)
    def double(x):
        raise NotImplementedError

    assert check(double).status == "not attempted"


def test_a_crash_is_wrong_and_says_the_error():
    @documented(DOUBLE)
    def double(x):
        return x.missing

    assert "AttributeError" in str(check(double))


def test_a_lost_docstring_is_said_rather_than_passed():
    def double(x):
        return 2 * x

    result = check(double)
    assert result.status == "wrong"
    assert "fresh notebook" in str(result)


def test_what_a_student_returns_is_escaped_in_the_page():
    @documented(DOUBLE)
    def double(x):
        return "<script>alert(1)</script>"

    page = check(double)._repr_mimebundle_()["text/html"]
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


MARKED = """Return a over b; 0 for b = 0.

    >>> ratio(6, 3)
    2.0
    >>> ratio(6, 0)  # zero
    0
    >>> ratio(6, "a")  # bad
    Traceback (most recent call last):
    ValueError: ...b...
    """


def test_a_tick_is_of_its_own_check():
    @documented(MARKED)
    def ratio(a, b):
        return a / b if b else 0

    found = {name: check(ratio, name, points=1) for name in ("plain", "zero", "bad")}
    assert [one.status for one in found.values()] == ["right", "right", "wrong"]
    assert [one.run for one in found.values()] == [1, 1, 1]
    (failure,) = found["bad"].failures
    assert (failure.source, failure.want) == ('ratio(6, "a")', "ValueError: ...b...")
    assert check(ratio).status == "right"


def test_an_invariant_that_fails_says_what_it_should_give():
    @documented("Return x.\n\n>>> same(1)\n1\n\nAlways: numbers stay.\n\n>>> same(2)\n2\n")
    def same(x):
        return 1

    assert [(one.kind, one.want, one.got) for one in check(same).failures] == [("invariant", "2", "1")]


def test_a_check_leaves_the_students_names_alone():
    @documented(DOUBLE)
    def double(x):
        return 2 * x

    before = set(globals())
    check(double)
    assert set(globals()) == before
