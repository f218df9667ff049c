import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvf_data.errors import ConfigError
from epvf_data.policies.spec import ACTIVATIONS, GAUSSIAN, OUTPUTS, Normaliser, PolicySpec

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
    hidden = tuple(draw(st.lists(sizes, max_size=3)))
    return PolicySpec(
        observations,
        draw(sizes),
        hidden,
        draw(st.sampled_from(ACTIVATIONS)),
        draw(st.sampled_from(OUTPUTS)),
        draw(st.booleans()),
        normaliser,
        layer_norm=bool(hidden) and draw(st.booleans()),
        gaussian=draw(st.sampled_from([None, *GAUSSIAN])),
    )


@given(specs())
def test_json_gives_the_same_spec_and_id_back(spec):
    again = PolicySpec.from_json(spec.to_json())
    assert again.to_json() == spec.to_json()
    assert again.id == spec.id
    assert again.layer_norm == spec.layer_norm
    assert again.gaussian == spec.gaussian
    assert again.tensors == spec.tensors


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
    ("spec", "known"),
    [
        (PolicySpec(34, 8), "17e4ec1575654b4f9c6bdacd7e7a856a8db23cd48d10da94daa74c5d0db0a967"),
        (
            PolicySpec(4, 1, (7,), "relu", "clip", False),
            "0534453f86b4dcbb0bbfdda71874341695750423487687edc50b9ff0ecebc746",
        ),
        (
            PolicySpec(11, 3, (9, 5), "elu", normaliser=Normaliser((0.1,) * 11, (2.0,) * 11)),
            "50926b7f317d35f2cdd888c333aad2c0b237dfdc0389d6f7586180695924a778",
        ),
    ],
    ids=str,
)
def test_ids_from_before_layer_norm_and_gaussian_outputs_stay(spec, known):
    assert spec.id == known


def test_kinds_of_one_size_have_ids_and_names_of_their_own():
    kinds = [
        PolicySpec(4, 2, (5, 3), layer_norm=norm, gaussian=gaussian)
        for norm in (False, True)
        for gaussian in (None, *GAUSSIAN)
    ]
    assert len({kind.id for kind in kinds}) == len({str(kind) for kind in kinds}) == 6
    assert [kind.size - kinds[0].size for kind in kinds] == [0, 2, 2, 16, 18, 18]
    assert [kind.sampled for kind in kinds] == [False, False, True] * 2
    value = kinds[-1].to_dict()
    assert value["layers"][1]["norm"] == {"epsilon": 1e-6}
    assert list(value["layers"][1]["tensors"]) == ["kernel", "bias", "norm_scale", "norm_bias"]
    assert set(value["layers"][2]) == {"name", "activation", "tensors"}
    assert value["gaussian"] == {"evaluated": "sampled", "log_std": {"offset": value["size"] - 2, "shape": [2]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation_size": 0}, "observation_size is 0"),
        ({"hidden": (64, 0)}, "hidden layer widths"),
        ({"activation": "tahn"}, "choose one of tanh"),
        ({"output": "sigmoid"}, "choose one of tanh"),
        ({"gaussian": "sample"}, "choose one of mean, sampled, or none"),
        ({"hidden": (), "layer_norm": True}, "this policy has none"),
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
    rich = PolicySpec(4, 1, layer_norm=True, gaussian="mean").to_dict()
    for path, wrong in (
        (("layers", 0, "norm", "epsilon"), 1e-5),
        (("layers", 1, "norm"), None),
        (("gaussian", "evaluated"), "sometimes"),
        (("gaussian", "log_std"), {"offset": 0, "shape": [1]}),
        (("gaussian",), None),
    ):
        value = json.loads(json.dumps(rich))
        place = value
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = wrong
        with pytest.raises(ConfigError, match=r"contradicts itself|choose one of|cannot be read"):
            PolicySpec.from_json(json.dumps(value))
    for text in ("{}", "[1]", "no json", '{"layers": 3}'):
        with pytest.raises(ConfigError, match="policy specification"):
            PolicySpec.from_json(text)
