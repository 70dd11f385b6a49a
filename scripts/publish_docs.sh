#!/usr/bin/env bash
# Build the site and publish it as the branch gh-pages: bash scripts/publish_docs.sh [REMOTE] [BRANCH]
# One commit on top of what is published; the working tree, the index and the current branch stay as they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

remote=${1:-origin} branch=${2:-gh-pages}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

PYTHONPATH=. python -m mkdocs build --strict --quiet --site-dir "$scratch/site"
touch "$scratch/site/.nojekyll" # folders that begin with an underscore are kept

export GIT_INDEX_FILE=$scratch/index GIT_WORK_TREE=$scratch/site
GIT_DIR=$(git rev-parse --absolute-git-dir)
export GIT_DIR
source=$(git rev-parse --short HEAD)
(cd "$scratch/site" && git add --all --force .)
tree=$(git write-tree)

parent=()
if git ls-remote --exit-code "$remote" "refs/heads/$branch" >"$scratch/there"; then
  git fetch --quiet --depth 1 "$remote" "$branch"
  parent=(-p "$(git rev-parse FETCH_HEAD)")
  if [ "$(git rev-parse 'FETCH_HEAD^{tree}')" = "$tree" ]; then
    echo "$branch of $remote is this site already"
    exit 0
  fi
fi
commit=$(git commit-tree "$tree" "${parent[@]}" -m "Docs of $source")
git push --quiet "$remote" "$commit:refs/heads/$branch"
echo "$branch of $remote is now the site of $source"
