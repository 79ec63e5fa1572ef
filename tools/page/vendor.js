// Copies the chart library and its licence from node_modules to where the page is served from.
import { copyFileSync, mkdirSync } from 'node:fs';

const from = new URL('node_modules/uplot/', import.meta.url);
const to = new URL('../../service/page/vendor/uplot/', import.meta.url);

mkdirSync(to, { recursive: true });
copyFileSync(new URL('LICENSE', from), new URL('LICENSE', to));
for (const file of ['uPlot.esm.js', 'uPlot.min.css']) {
  copyFileSync(new URL(`dist/${file}`, from), new URL(file, to));
}
