import json

import pytest

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.structures import Structure, find_dataset_json, read_label_coding


def test_background_and_ignore_are_not_scored(tmp_path, write_dataset_json):
    write_dataset_json(tmp_path, {"background": 0, "RV": 1, "LV": 3, "MYO": 2, "ignore": 4})
    coding = read_label_coding(tmp_path / "dataset.json")
    # In the order of values, as nnU-Net's own logs have them, whatever the order of the file.
    assert coding.structures == (Structure("RV", (1,)), Structure("MYO", (2,)), Structure("LV", (3,)))
    assert coding.allowed == {0, 1, 2, 3}
    assert coding.ignore == 4
    assert coding.file_ending == ".nii.gz"


def test_regions_are_scored_as_unions(tmp_path, write_dataset_json):
    write_dataset_json(tmp_path, {"background": [0], "whole": [1, 2, 3], "core": [3, 2], "enhancing": 3})
    coding = read_label_coding(tmp_path / "dataset.json")
    assert [(entry.name, entry.values) for entry in coding.structures] == [
        ("whole", (1, 2, 3)),
        ("core", (2, 3)),
        ("enhancing", (3,)),
    ]
    assert coding.allowed == {0, 1, 2, 3}
    assert coding.ignore is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is not an object of keys and values"),
        (json.dumps({"labels": {"background": 0, "RV": 1}}), "has no 'file_ending'"),
        (json.dumps({"labels": {"0": "background"}, "file_ending": ".nii.gz"}), "'labels.0' is 'background'"),
        (json.dumps({"labels": {"background": 0, "RV": 1.5}, "file_ending": ".nii.gz"}), "'labels.RV' is 1.5"),
        (json.dumps({"labels": {"RV": 1, "UNLABELLED ": 2}, "file_ending": ".nii.gz"}), "the label 'UNLABELLED ' is a"),
        (json.dumps({"labels": {"background": 0, "RV": -1}, "file_ending": ".nii.gz"}), "'labels.RV' is -1"),
        (json.dumps({"labels": {"background": 0, "RV": []}, "file_ending": ".nii.gz"}), "'labels.RV' is []"),
        (
            json.dumps({"labels": {"background": 0, "ignore": 1}, "file_ending": ".nii.gz"}),
            "no label but the background",
        ),
    ],
)
def test_what_is_refused(tmp_path, content, message):
    file = tmp_path / "dataset.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(AttenScribbleError) as caught:
        read_label_coding(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_where_dataset_json_is_looked_for(tmp_path, write_dataset_json):
    validation, labels = tmp_path / "model" / "fold_0" / "validation", tmp_path / "raw" / "labelsTr"
    validation.mkdir(parents=True)
    labels.mkdir(parents=True)
    with pytest.raises(AttenScribbleError, match=r"no dataset.json .* --dataset-json"):
        find_dataset_json(validation, labels)
    for folder in (labels.parent, labels, tmp_path / "model", validation):  # the later, the nearer to the predictions
        write_dataset_json(folder)
        assert find_dataset_json(validation, labels) == folder / "dataset.json"


def test_a_stranger_two_levels_up_is_not_taken_for_the_model(tmp_path, write_dataset_json):
    predictions = tmp_path / "study" / "predictions"
    predictions.mkdir(parents=True)
    write_dataset_json(tmp_path)
    with pytest.raises(AttenScribbleError, match=r"no dataset.json"):
        find_dataset_json(predictions, tmp_path / "elsewhere" / "labels")
