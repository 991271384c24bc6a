"""The arguments of pruned wrappers: the stock wrapper's, and the pruning settings."""

import pytest

from otprune_lmms.environment import SettingsError
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.stock.arguments import parameters_of, parse

PARAMETERS = ("pretrained", "device", "max_pixels", "fps")


def parsed(**given):
    return parse(given, "some_vl", PARAMETERS)


def test_without_a_method_the_stock_wrapper_gets_what_was_given():
    given = {"pretrained": "here", "max_pixels": 12, "fps": None}
    found = parsed(**given)
    assert found.stock == given
    assert (found.config, found.unit) == (PruningConfig(), None)


@pytest.mark.parametrize("none", ["none", "ORIG"])
def test_no_method_has_names_as_in_llava(none):
    assert parsed(pretrained="here", method=none).config == PruningConfig()


def test_pruning_settings_are_those_of_llava_with_its_other_names():
    found = parsed(pretrained="here", method="OURS", subset_ratio=0.25, layer_index=2, gamma=0.05)
    assert found.stock == {"pretrained": "here"}
    assert found.config == PruningConfig.make("otprune", 0.25, layer=2, gamma=0.05)
    assert parsed(method="divprune", k=9, unit="sample").unit == "sample"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"method": "divprun", "k": 9},
            r"method must be one of OURS, ORIG, .* got 'divprun'.*divprune",
        ),
        ({"method": "divprune"}, "keep_ratio"),
        ({"method": "divprune", "keep_ratio": 9.8}, r"keep_ratio must be in \(0, 1\], got 9.8"),
        ({"method": "divprune", "keep_ratio": 0.2, "k": 3}, "keep_ratio"),
        ({"keep_ratio": 0.2}, "keep_ratio needs a method"),
        ({"keep_ration": 0.2}, "unknown argument 'keep_ration' in model_args; .*keep_ratio"),
        ({"max_pixel": 3}, "unknown argument 'max_pixel' in model_args; known: .*max_pixels"),
        ({"method": "divprune", "k": 9, "gamma": 1}, "unknown argument 'gamma'"),
        ({"method": "divprune", "k": 9, "unit": "page"}, "unit must be one of image, tile, sample"),
        ({"unit": "tile"}, "unit needs a method"),
        (
            {"method": "divprune", "keep_ratio": 0.2, "subset_ratio": 0.3},
            "given twice",
        ),
    ],
)
def test_a_bad_setting_is_one_sentence(given, message):
    with pytest.raises(SettingsError, match=message) as caught:
        parsed(pretrained="here", **given)
    assert "\n" not in str(caught.value)


def test_an_argument_that_both_take_is_refused():
    with pytest.raises(SettingsError, match="gamma is an argument of lmms-eval's wrapper some_vl"):
        parse({"method": "otprune", "k": 9}, "some_vl", [*PARAMETERS, "gamma"])


def test_parameters_are_also_those_of_the_class_that_arguments_are_handed_to():
    class Base:
        def __init__(self, pretrained: str = "here", *, fps: float = 1.0, **kwargs: object) -> None:
            pass

    class Simple(Base):
        def __init__(self, pretrained: str, frames: int = 3, **kwargs: object) -> None:
            super().__init__(pretrained, **kwargs)

    class Chat(Simple):
        pass

    assert parameters_of(Base) == ("pretrained", "fps")
    assert parameters_of(Chat) == ("pretrained", "frames", "fps")
