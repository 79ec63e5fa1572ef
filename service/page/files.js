// Files that are chosen, or dropped anywhere on the page.

import { find } from './dom.js';

/** @param {(files: File[]) => void} take */
export function startFiles(take) {
  const input = find('files', HTMLInputElement);
  input.addEventListener('change', () => {
    take([...(input.files ?? [])]);
    input.value = ''; // so that the same file can be chosen again
  });
  find('choose', HTMLButtonElement).addEventListener('click', () => input.click());

  let within = 0; // dragging over a child enters it before it leaves the parent
  const mark = () => document.body.classList.toggle('dragging', within > 0);
  addEventListener('dragenter', (event) => {
    if (event.dataTransfer?.types.includes('Files')) {
      within++;
      mark();
    }
  });
  addEventListener('dragleave', () => {
    within = Math.max(0, within - 1);
    mark();
  });
  addEventListener('dragover', (event) => event.preventDefault());
  addEventListener('drop', (event) => {
    event.preventDefault();
    within = 0;
    mark();
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.length) {
      take(files);
    }
  });
}
