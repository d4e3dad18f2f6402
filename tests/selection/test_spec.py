"""The grammar of selection specs: what it reads, what it prints, what it says when it cannot read."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet.errors import SpecError
from tubelet.selection.spec import Budget, Spec, Step, Term, parse

VALID = [  # forms that are promised to stay valid
    "stts:T0.6@0-S0.9@4",
    "stts:T5@0-S13@4",
    "stts:T7@0-T5@4-S53@0-S10@4",
    "sta:r=64",
    "sta:keep=0.5",
    "keyframe:keep=0.7@3,6,9",
    "keyframe:keep=0.6@3,6,9,weight=4",
    "keyframe:keep=0.8@3-keep=0.6@6",
    "random:keep=0.5@4",
    "uniform:T0.5@0",
    "attention:keep=0.5@4",
    "gumbel:T0.6@0",
    "merge:r=65",
    "uniform:T0.5@0+sta:r=16,groups=4/4/2",
    "none",
]

counts = st.integers(1, 5000)
shares = st.floats(0, 1, exclude_min=True)
budgets = st.one_of(
    st.builds(Budget, st.just("T"), counts | shares),
    st.builds(Budget, st.just("S"), counts | shares | st.tuples(counts, counts)),
    st.builds(Budget, st.just("keep"), shares),
    st.builds(Budget, st.just("r"), st.integers(0, 5000)),
)
steps = st.builds(Step, budgets, st.lists(st.integers(0, 99), unique=True, max_size=4).map(tuple))
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name != "none")
options = st.lists(
    st.tuples(
        st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True), st.from_regex(r"[A-Za-z0-9._/]{1,9}", fullmatch=True)
    ),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(tuple)
terms = st.builds(Term, names) | st.builds(Term, names, st.lists(steps, min_size=1, max_size=3).map(tuple), options)


@given(st.lists(terms, max_size=3).map(tuple))
def test_printing_and_reading_are_inverse(parts):
    spec = Spec(parts)
    assert parse(str(spec)) == spec


@pytest.mark.parametrize("text", VALID)
def test_promised_forms_are_read_and_printed_as_given(text):
    assert str(parse(text)) == text


def test_what_is_read():
    spec = parse("uniform:T0.5@0+sta:r=16,groups=4/4/2")
    assert spec.terms[0] == Term("uniform", (Step(Budget("T", 0.5), (0,)),))
    assert spec.terms[1] == Term("sta", (Step(Budget("r", 16)),), (("groups", "4/4/2"),))
    assert parse("stts:S12x14@4").terms[0].steps[0].budget.amount == (12, 14)
    assert parse("keyframe:keep=0.6@3,6,9,weight=4").terms[0].steps[0].places == (3, 6, 9)
    assert parse("none") == Spec()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty selection spec"),
        ("none+sta:r=4", "'none' stands alone"),
        ("STA:r=4", "not a selector's name"),
        ("sta:", "'' in 'sta:' is not a budget"),
        ("sta:64", "'64' in 'sta:64' is not a budget"),
        ("sta:r=0.5", "r is a whole number"),
        ("sta:r=-4", "is not a budget"),
        ("random:keep=1", "a share with a point"),
        ("random:keep=1.5@4", "more than 0 and at most 1.0"),
        ("random:keep=0.0@4", "more than 0 and at most 1.0"),
        ("random:T0@0", "at least 1 must be kept"),
        ("random:S0x4@0", "at least one row"),
        ("random:T2x2@0", "rows x columns is a form of S"),
        ("random:T5@x", "are not block numbers"),
        ("random:T5@", "are not block numbers"),
        ("random:T5@4,4", "name a block twice"),
        ("sta:r=4,groups", "is not an option"),
        ("sta:r=4,groups=8/4/2,groups=4", "given twice"),
        ("sta:r=4,groups=8 4", "is not an option"),
        ("sta:r=4+", "not a selector's name"),
    ],
)
def test_errors_say_what_was_given(text, says):
    with pytest.raises(SpecError, match=re.escape(says)):
        parse(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        spec = parse(text)
    except SpecError:
        return
    assert parse(str(spec)) == spec
