import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvf_data.errors import ConfigError
from epvf_data.policies.spec import ACTIVATIONS, OUTPUTS, Normaliser, PolicySpec

sizes = st.integers(1, 9)


@st.composite
def specs(draw):
    observations = draw(sizes)
    normaliser = None
    if draw(st.booleans()):
        finite = st.floats(-5, 5, allow_nan=False)
        mean = draw(st.lists(finite, min_size=observations, max_size=observations))
        std = draw(st.lists(st.floats(0.1, 5), min_size=observations, max_size=observations))
        normaliser = Normaliser(tuple(mean), tuple(std))
    return PolicySpec(
        observations,
        draw(sizes),
        tuple(draw(st.lists(sizes, max_size=3))),
        draw(st.sampled_from(ACTIVATIONS)),
        draw(st.sampled_from(OUTPUTS)),
        draw(st.booleans()),
        normaliser,
    )


@given(specs())
def test_json_gives_the_same_spec_and_id_back(spec):
    again = PolicySpec.from_json(spec.to_json())
    assert again.to_json() == spec.to_json()
    assert again.id == spec.id


@given(specs())
def test_tensors_tile_the_flat_vector_without_gap_or_overlap(spec):
    offset = 0
    for slot in spec.tensors.values():
        assert slot.offset == offset
        offset += slot.size
    assert offset == spec.size


def test_id_is_the_hash_of_the_text_and_does_not_move():
    # A changed id would orphan every stored row: this value may change with the format version only.
    assert PolicySpec(34, 8).id == "17e4ec157565" + PolicySpec(34, 8).id[12:]
    assert PolicySpec(34, 8).size == 6920
    assert PolicySpec(34, 8).id != PolicySpec(34, 8, activation="relu").id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation_size": 0}, "observation_size is 0"),
        ({"hidden": (64, 0)}, "hidden layer widths"),
        ({"activation": "tahn"}, "choose one of tanh"),
        ({"output": "sigmoid"}, "choose one of tanh"),
        ({"normaliser": Normaliser((0.0,), (1.0,))}, "the policy observes 4"),
        ({"normaliser": Normaliser((0.0,) * 4, (0.0,) * 4)}, "positive standard deviations"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(change, message):
    with pytest.raises(ConfigError, match=message):
        PolicySpec(**{"observation_size": 4, "action_size": 1, **change})


def test_tampered_json_is_refused():
    value = PolicySpec(4, 1).to_dict()
    value["layers"][0]["tensors"]["bias"]["offset"] = 7
    with pytest.raises(ConfigError, match="contradicts itself"):
        PolicySpec.from_json(json.dumps(value))
    for text in ("{}", "[1]", "no json", '{"layers": 3}'):
        with pytest.raises(ConfigError, match="policy specification"):
            PolicySpec.from_json(text)
