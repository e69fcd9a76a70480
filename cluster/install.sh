# For the stages of the Dockerfile that build: makes /venv of the packages in requirements.txt, each with its hash from the lock.
# `install.sh lab` adds those of course.txt to it, and the names of the packages whose code is the clone at /workshop.
# From the folder wheels when it holds any, and then from nowhere else; otherwise from the package index.
set -eu
if ls wheels/*.whl >/dev/null 2>&1; then
    export PIP_NO_INDEX=1 PIP_FIND_LINKS="$PWD/wheels" UV_NO_INDEX=1 UV_FIND_LINKS="$PWD/wheels" UV_OFFLINE=1
    trap '[ $? = 0 ] || echo "error: the wheel folder does not hold what this image needs: packages of this lock for Linux on $(uname -m) with $(python3 --version)." >&2' EXIT
fi
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="$PIP_INDEX_URL"

[ -e tools ] || python3 -m venv tools
if [ -e ca.pem ]; then
    # A proxy may present its own certificate for one address and let another one through, so both kinds are trusted.
    find tools -name cacert.pem -exec cat {} + > trusted.pem
    cat ca.pem >> trusted.pem
    export PIP_CERT="$PWD/trusted.pem" SSL_CERT_FILE="$PWD/trusted.pem"
fi
if [ "${1:-}" = lab ]; then
    tools/bin/uv pip install --quiet --python /venv/bin/python --no-cache --no-deps --require-hashes --compile-bytecode \
        --only-binary :all: -r course.txt
    for folder in /workshop /workshop/lifecycle; do
        (cd "$folder" && /build/tools/bin/python -m hatchling build --target wheel:editable --directory /build/editable)
    done
    tools/bin/uv pip install --quiet --offline --python /venv/bin/python --no-cache --no-deps --reinstall editable/*.whl
    echo /workshop > "$(echo /venv/lib/python3*/site-packages)/workshop.pth" # its folders are not there yet, so hatchling named none
    exit
fi
tools/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r build-requirements.txt
python3 -m venv --without-pip /venv
# kfp-server-api comes as source alone, in plain Python. What builds it is setuptools, which is among the packages, so it goes first.
sed -n '/^setuptools==/,/[^\\]$/p' requirements.txt > first.txt
for list in first.txt requirements.txt; do
    tools/bin/uv pip install --quiet --python /venv/bin/python --no-cache --no-deps --require-hashes --compile-bytecode \
        --only-binary :all: --no-binary kfp-server-api --no-build-isolation -r "$list"
done

case "${EXTRA:-}" in
'') ;;
distributed)
    list=requirements-distributed.txt
    if [ -n "${INDEX:-}" ] || ls wheels/torch-*+*.whl >/dev/null 2>&1; then
        # Another build of PyTorch, such as 2.13.0+cpu, has a hash of its own and needs less. What it needs keeps version and hash.
        sed '/^torch==/,/[^\\]$/d' "$list" > locked.txt
        tools/bin/uv pip install --quiet --python /venv/bin/python --no-cache --compile-bytecode --only-binary :all: \
            ${INDEX:+--index "$INDEX"} --index-strategy unsafe-best-match --constraint locked.txt "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "$list")"
    else
        tools/bin/uv pip install --quiet --python /venv/bin/python --no-cache --no-deps --require-hashes --compile-bytecode \
            --only-binary :all: -r "$list"
    fi
    ;;
*)
    echo "error: EXTRA=$EXTRA: there is EXTRA=distributed alone." >&2
    exit 1
    ;;
esac
