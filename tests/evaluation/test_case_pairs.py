import pytest

from nnunet_attenscribble.errors import AttenScribbleError
from nnunet_attenscribble.evaluation.scoring import CasePair, pair_cases


@pytest.fixture
def touch(tmp_path):
    """touch(folder, names...) makes empty files and gives the folder."""

    def make(folder, *names):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / folder / name).touch()
        return tmp_path / folder

    return make


def test_pairs_in_order_and_cases_without_prediction(touch):
    predictions = touch("predictions", "b.nii.gz", "a.nii.gz", "a.npz", "._a.nii.gz", "dataset.json", "summary.json")
    dense = touch("dense", "a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz", "._b.nii.gz", "notes.txt")
    pairs, not_predicted = pair_cases(predictions, dense, ".nii.gz")
    assert pairs == [CasePair(case, predictions / f"{case}.nii.gz", dense / f"{case}.nii.gz") for case in "ab"]
    assert not_predicted == ["c", "d"]


@pytest.mark.parametrize("name", ["a.nrrd", "a.seg.nrrd", "a.mhd", "a.nhdr", "a.hdr"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_dense_labels_may_have_another_format(touch, name, ending):
    pairs, _ = pair_cases(touch("predictions", f"a{ending}"), touch("dense", name, "a.raw"), ending)
    assert pairs[0].dense.name == name


def test_every_problem_is_told_at_once(touch):
    predictions = touch("predictions", "a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz")
    dense = touch("dense", "a.nii.gz", "c.nii.gz", "c.mha")
    (dense / "d.nii.gz").symlink_to(predictions / "d.nii.gz")
    with pytest.raises(AttenScribbleError) as caught:
        pair_cases(predictions, dense, ".nii.gz")
    without, several, same = caught.value.problems
    assert f"prediction {predictions / 'b.nii.gz'} has no dense label: {dense} has no b.nii.gz" in without
    assert "case c has several dense labels" in several
    assert "c.nii.gz, c.mha" in several or "c.mha, c.nii.gz" in several
    assert f"{predictions / 'd.nii.gz'} is the same file as its dense label" in same


def test_missing_and_empty_folders(touch, tmp_path):
    with pytest.raises(AttenScribbleError) as caught:
        pair_cases(tmp_path / "nowhere", tmp_path / "neither", ".nii.gz")
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "no predictions to score",
        "no dense labels to compare with",
    ]
    with pytest.raises(AttenScribbleError) as caught:
        pair_cases(touch("predictions", "a.mha"), touch("dense", "readme.txt"), ".nii.gz")
    none, no_labels = caught.value.problems
    assert f"no predictions found: {tmp_path / 'predictions'} has no file that ends in .nii.gz" in none
    assert f"no dense labels to compare with: {tmp_path / 'dense'} has no label file, such as CASE.nii.gz" in no_labels
    assert no_labels.endswith("it holds readme.txt")


def test_a_folder_is_not_compared_with_itself(touch, tmp_path):
    folder = touch("labels", "a.nii.gz")
    (tmp_path / "link").symlink_to(folder)
    for other in (folder, tmp_path / "link", folder / ".." / "labels"):
        with pytest.raises(AttenScribbleError) as caught:
            pair_cases(folder, other, ".nii.gz")
        (problem,) = caught.value.problems
        assert problem.startswith(f"{folder} was given as predictions and as dense labels: the truth would be compared")


@pytest.mark.parametrize(
    ("predicted", "true", "told"),
    [
        ("a b", "a_seg b_seg c_seg", ", which are the same but for '_seg' at the end"),
        ("a_pred b_pred", "a b c", ", which are the same but for '_pred' at the end"),
        ("p_1_pred p_2_pred", "p_1_gt p_2_gt", ", which are the same but for '_gt' and '_pred' at the end"),
        ("a_0000 b_0000", "a b", ", which are the same but for '_0000' at the end"),
        ("a b", "a.seg b.seg", ", which are the same but for '.seg' at the end"),
        ("a", "a_manual_seg", ", which are the same but for '_manual_seg' at the end"),
        ("a b", "c d", ""),
        ("a_seg b", "a b_seg", ""),
        ("heart_3", "heart", ""),  # another case
    ],
)
def test_names_that_differ_are_shown_and_not_guessed(touch, predicted, true, told):
    names = {"p": predicted.split(), "t": true.split()}
    folders = [touch(name, *(f"{case}.nii.gz" for case in cases)) for name, cases in names.items()]
    with pytest.raises(AttenScribbleError) as caught:
        pair_cases(*folders, ".nii.gz")
    (problem,) = caught.value.problems
    assert f"these are called {', '.join(names['t'])}, predictions {', '.join(names['p'])}{told}: call" in problem
