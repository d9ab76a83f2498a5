"""What a replica says when Ray asks whether it is well."""

import pytest

from app.settings import Settings
from tests.app.answers import post_images
from tests.app.fake_embedder import ENDS_THREAD, FakeEmbedder
from tests.app.images import plain_png
from tests.app.service_server import run_service


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # Ray's own
def test_a_replica_is_unwell_once_only_a_new_process_will_do() -> None:
    from app.scale.serving import Replica

    replica = Replica()
    with run_service(Settings(), FakeEmbedder()) as single:
        replica.app = single.app
        replica.check_health()
        post_images(single.client, "raw", [plain_png((ENDS_THREAD, 0, 0))])

        with pytest.raises(RuntimeError, match="dead"):
            replica.check_health()
