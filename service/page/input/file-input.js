// Files that are chosen with the button, or dropped anywhere on the page.

import { find } from '../common/dom.js';

/** @param {(files: File[]) => void} onFiles called with the files of each choice or drop */
export function startFileInput(onFiles) {
  const input = find('files', HTMLInputElement);
  input.addEventListener('change', () => {
    onFiles([...(input.files ?? [])]);
    input.value = ''; // otherwise choosing the same file again would fire no event
  });
  find('choose', HTMLButtonElement).addEventListener('click', () => input.click());

  let depth = 0; // elements entered and not left: a child is entered before its parent is left
  const update = () => document.body.classList.toggle('dragging', depth > 0);
  addEventListener('dragenter', (event) => {
    if (event.dataTransfer?.types.includes('Files')) {
      depth++;
      update();
    }
  });
  addEventListener('dragleave', () => {
    depth = Math.max(0, depth - 1);
    update();
  });
  addEventListener('dragover', (event) => event.preventDefault());
  addEventListener('drop', (event) => {
    event.preventDefault();
    depth = 0;
    update();
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length) {
      onFiles(files);
    }
  });
}
